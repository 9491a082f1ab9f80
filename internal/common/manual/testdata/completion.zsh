#compdef sample

_gobcc_sample_pids() {
	local -a pids=(/proc/<->(N:t))
	compadd "$@" -a pids
}

_gobcc_sample() {
	# A command follows "--", and then its own arguments.
	local -a command
	if ((${words[(i)--]} < CURRENT)); then
		command=('(-)1:command: _command_names -e' '*::arguments: _normal')
	fi
	_arguments -s -S \
		'(-x --failed)'{'-x','--failed'}'[show only what failed; it'\''s the first thing to try when a program stops at its start without a word \[see above\]\: really]' \
		'(-d --duration)'{'-d+','--duration='}'[stop after this many SECONDS]:SECONDS: ' \
		'--run=[run PROGRAM at the end]:PROGRAM:_command_names -e' \
		'--chdir=[run in DIR]:DIR:_files -/' \
		'*'{'-p+','--pid='}'[only these processes\: PID\[,PID...\]]:PID[,PID...]:_gobcc_sample_pids' \
		'(-u --user)'{'-u+','--user='}'[only processes of this USER, by name or number]:USER:_users' \
		'*--path=[only paths that match GLOB, in which * matches any text without a / and ** any text]:GLOB: ' \
		'*--flag=[only opens with this FLAG]:FLAG:(O_CREAT O_EXCL)' \
		'--attach=[how to attach\: auto|fentry|kprobe]:auto|fentry|kprobe:(auto fentry kprobe)' \
		'--btf=[read the kernel'\''s types from FILE]:FILE:_files' \
		'--stats=-[print what the tool cost, as FORMAT]::FORMAT:(text json)' \
		'(-h --help)'{'-h','--help'}'[print this text and exit]' \
		"${command[@]}"
}

if [[ $funcstack[1] == _sample ]]; then
	_gobcc_sample "$@"
else
	compdef _gobcc_sample sample
fi
