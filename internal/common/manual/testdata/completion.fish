# fish completion for sample

complete -c sample -f

function _gobcc_sample_command
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words); or return
    set -l rest $words[(math $at + 1)..] (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $rest[1..-2]) $rest[-1])
end

complete -c sample -n 'contains -- -- (commandline -opc)' -xa '(_gobcc_sample_command)'

complete -c sample -n 'not contains -- -- (commandline -opc)' -s x -l failed -d 'show only what failed; it\'s the first thing to try when a program stops at its start without a word [see above]: really'
complete -c sample -n 'not contains -- -- (commandline -opc)' -s d -l duration -x -d 'stop after this many SECONDS'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l run -xa '(__fish_complete_command)' -d 'run PROGRAM at the end'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l chdir -xa '(__fish_complete_directories (commandline -ct))' -d 'run in DIR'
complete -c sample -n 'not contains -- -- (commandline -opc)' -s p -l pid -xa '(string replace -rf "^/proc/(\\d+)\$" "\$1" /proc/*)' -d 'only these processes: PID[,PID...]'
complete -c sample -n 'not contains -- -- (commandline -opc)' -s u -l user -xa '(string replace -rf "^([^:#]+):.*" "\$1" </etc/passwd)' -d 'only processes of this USER, by name or number'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l path -x -d 'only paths that match GLOB, in which * matches any text without a / and ** any text'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l flag -xa 'O_CREAT O_EXCL' -d 'only opens with this FLAG'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l attach -xa 'auto fentry kprobe' -d 'how to attach: auto|fentry|kprobe'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l btf -rF -d 'read the kernel\'s types from FILE'
complete -c sample -n 'not contains -- -- (commandline -opc)' -l stats -d 'print what the tool cost, as FORMAT'
complete -c sample -n 'not contains -- -- (commandline -opc)' -s h -l help -d 'print this text and exit'
