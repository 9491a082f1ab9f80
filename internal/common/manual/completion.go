package manual

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Shells are the shells that [Manual.Completion] knows.
var Shells = []string{"bash", "zsh", "fish"}

// Completion writes the completion script for a shell: option names (with
// their texts where the shell shows them), the values that [Values] and
// [Completes] declared, and, for a tool that starts one, a command after "--".
// The script starts no program when it runs.
func (m *Manual) Completion(w io.Writer, fs *pflag.FlagSet, shell string) error {
	var options []option
	for _, g := range groups(fs) {
		options = append(options, g.options...)
	}
	var b bytes.Buffer
	switch shell {
	case "bash":
		m.bash(&b, options)
	case "zsh":
		m.zsh(&b, options)
	case "fish":
		m.fish(&b, options)
	default:
		return fmt.Errorf("no completion for shell %q: take one of %s", shell, strings.Join(Shells, ", "))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (m *Manual) bash(b *bytes.Buffer, options []option) {
	fn := m.function()
	fmt.Fprintf(b, `# bash completion for %[1]s

%[2]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} glued='' i
	COMPREPLY=()
`, m.Name, fn)
	if m.takesCommand() {
		b.WriteString(`	# A command follows "--", and then its own arguments.
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
`)
	}
	b.WriteString(`	# Bash breaks --name=value into three words.
	if [[ $cur == = ]]; then
		glued=1 cur=''
	elif [[ $prev == = ]]; then
		glued=1 prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $prev in
`)
	for _, o := range options {
		if o.value == "" {
			continue
		}
		if o.optional { // its value can only follow "="
			fmt.Fprintf(b, "\t--%s)\n\t\tif [[ $glued ]]; then\n\t\t\t%s\n\t\t\treturn\n\t\tfi\n\t\t;;\n", o.long, o.bash())
			continue
		}
		names := "--" + o.long
		if o.short != "" {
			names = "-" + o.short + " | " + names
		}
		fmt.Fprintf(b, "\t%s)\n\t\t%s\n\t\treturn\n\t\t;;\n", names, o.bash())
	}
	b.WriteString("\tesac\n")
	var names []string
	for _, o := range options {
		if o.short != "" {
			names = append(names, "-"+o.short)
		}
		names = append(names, "--"+o.long)
	}
	if m.takesCommand() {
		names = append(names, "--")
	}
	fmt.Fprintf(b, "\tmapfile -t COMPREPLY < <(compgen -W %s -- \"$cur\")\n}\n\ncomplete -F %s %s\n",
		quote(strings.Join(names, " ")), fn, m.Name)
}

// bash returns the command that completes an option's value.
func (o option) bash() string {
	reply := func(generate string) string {
		return "mapfile -t COMPREPLY < <(compgen " + generate + ` -- "$cur")`
	}
	switch {
	case len(o.values) > 0:
		return reply("-W " + quote(strings.Join(o.values, " ")))
	case o.kind == File:
		return "compopt -o filenames 2>/dev/null\n\t\t" + reply("-f")
	case o.kind == Directory:
		return "compopt -o filenames 2>/dev/null\n\t\t" + reply("-d")
	case o.kind == PID:
		return "local pids=(/proc/[0-9]*)\n\t\t" + reply(`-W "${pids[*]#/proc/}"`)
	case o.kind == User:
		return reply("-u")
	case o.kind == Command:
		return reply("-c")
	}
	return ": # any value"
}

func (m *Manual) zsh(b *bytes.Buffer, options []option) {
	fmt.Fprintf(b, "#compdef %s\n\n", m.Name)
	fn := m.function()
	if hasKind(options, PID) {
		fmt.Fprintf(b, "%s_pids() {\n\tlocal -a pids=(/proc/<->(N:t))\n\tcompadd \"$@\" -a pids\n}\n\n", fn)
	}
	fmt.Fprintf(b, "%s() {\n", fn)
	if m.takesCommand() {
		b.WriteString(`	# A command follows "--", and then its own arguments.
	local -a command
	if ((${words[(i)--]} < CURRENT)); then
		command=('(-)1:command: _command_names -e' '*::arguments: _normal')
	fi
`)
	}
	b.WriteString("\t_arguments -s -S")
	for _, o := range options {
		fmt.Fprintf(b, " \\\n\t\t%s", o.zsh(fn))
	}
	if m.takesCommand() {
		b.WriteString(" \\\n\t\t\"${command[@]}\"")
	}
	// Autoloaded, the file is the function's body; sourced, it defines one.
	fmt.Fprintf(b, "\n}\n\nif [[ $funcstack[1] == _%[1]s ]]; then\n\t%[2]s \"$@\"\nelse\n\tcompdef %[2]s %[1]s\nfi\n", m.Name, fn)
}

// zsh returns the option's specification for _arguments.
func (o option) zsh(fn string) string {
	text := "[" + strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(o.text) + "]"
	action := ""
	long, short := "--"+o.long, "-"+o.short
	if o.value != "" {
		message := strings.ReplaceAll(o.value, ":", `\:`)
		lead := ":"
		if o.optional {
			lead = "::"
			long += "=-"
		} else {
			long += "="
			short += "+"
		}
		action = lead + message + ":" + o.zshAction(fn)
	}
	switch {
	case o.short == "" && o.list:
		return quote("*" + long + text + action)
	case o.short == "":
		return quote(long + text + action)
	case o.list:
		return "'*'{" + quote(short) + "," + quote(long) + "}" + quote(text+action)
	}
	return quote("(-"+o.short+" --"+o.long+")") + "{" + quote(short) + "," + quote(long) + "}" + quote(text+action)
}

func (o option) zshAction(fn string) string {
	switch {
	case len(o.values) > 0:
		return "(" + strings.Join(o.values, " ") + ")"
	case o.kind == File:
		return "_files"
	case o.kind == Directory:
		return "_files -/"
	case o.kind == PID:
		return fn + "_pids"
	case o.kind == User:
		return "_users"
	case o.kind == Command:
		return "_command_names -e"
	}
	return " " // a message, and nothing to choose from
}

func (m *Manual) fish(b *bytes.Buffer, options []option) {
	fmt.Fprintf(b, "# fish completion for %[1]s\n\ncomplete -c %[1]s -f\n", m.Name)
	condition := ""
	if m.takesCommand() {
		// Behind "--" the command's own completions hold.
		fmt.Fprintf(b, `
function %[2]s_command
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words); or return
    set -l rest $words[(math $at + 1)..] (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $rest[1..-2]) $rest[-1])
end

complete -c %[1]s -n 'contains -- -- (commandline -opc)' -xa '(%[2]s_command)'
`, m.Name, m.function())
		condition = " -n 'not contains -- -- (commandline -opc)'"
	}
	b.WriteByte('\n')
	for _, o := range options {
		fmt.Fprintf(b, "complete -c %s%s", m.Name, condition)
		if o.short != "" {
			b.WriteString(" -s " + o.short)
		}
		b.WriteString(" -l " + o.long)
		if o.value != "" && !o.optional {
			b.WriteString(o.fish())
		}
		b.WriteString(" -d " + fishQuote(o.text) + "\n")
	}
}

// fish returns the arguments of complete that describe an option's value.
func (o option) fish() string {
	switch {
	case len(o.values) > 0:
		return " -xa " + fishQuote(strings.Join(o.values, " "))
	case o.kind == File:
		return " -rF"
	case o.kind == Directory:
		return " -xa '(__fish_complete_directories (commandline -ct))'"
	case o.kind == PID:
		return ` -xa '(string replace -rf "^/proc/(\\d+)\$" "\$1" /proc/*)'`
	case o.kind == User:
		return ` -xa '(string replace -rf "^([^:#]+):.*" "\$1" </etc/passwd)'`
	case o.kind == Command:
		return " -xa '(__fish_complete_command)'"
	}
	return " -x"
}

// function is the name of the tool's completion function.
func (m *Manual) function() string {
	return "_gobcc_" + strings.ReplaceAll(m.Name, "-", "_")
}

func hasKind(options []option, kind Kind) bool {
	return slices.ContainsFunc(options, func(o option) bool { return o.kind == kind })
}

// quote quotes a word for bash and zsh.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// fishQuote quotes a word for fish, in which a backslash escapes inside single
// quotes.
func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
