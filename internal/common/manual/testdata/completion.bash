# bash completion for sample

_gobcc_sample() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} glued='' i
	COMPREPLY=()
	# A command follows "--", and then its own arguments.
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -- ]] || continue
		compopt -o filenames 2>/dev/null
		if ((i == COMP_CWORD - 1)); then
			mapfile -t COMPREPLY < <(compgen -c -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi
		return
	done
	# Bash breaks --name=value into three words.
	if [[ $cur == = ]]; then
		glued=1 cur=''
	elif [[ $prev == = ]]; then
		glued=1 prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $prev in
	-d | --duration)
		: # any value
		return
		;;
	--run)
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
		return
		;;
	--chdir)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	-p | --pid)
		local pids=(/proc/[0-9]*)
		mapfile -t COMPREPLY < <(compgen -W "${pids[*]#/proc/}" -- "$cur")
		return
		;;
	-u | --user)
		mapfile -t COMPREPLY < <(compgen -u -- "$cur")
		return
		;;
	--path)
		: # any value
		return
		;;
	--flag)
		mapfile -t COMPREPLY < <(compgen -W 'O_CREAT O_EXCL' -- "$cur")
		return
		;;
	--attach)
		mapfile -t COMPREPLY < <(compgen -W 'auto fentry kprobe' -- "$cur")
		return
		;;
	--btf)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--stats)
		if [[ $glued ]]; then
			mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur")
			return
		fi
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W '-x --failed -d --duration --run --chdir -p --pid -u --user --path --flag --attach --btf --stats -h --help --' -- "$cur")
}

complete -F _gobcc_sample sample
