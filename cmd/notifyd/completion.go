package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

// Help is shown by --help.
func (completionCmd) Help() string {
	return `The script asks this program for what fits, so it need not be made again for a new version. For one session:

    source <(notifyd completion bash)
    source <(notifyd completion zsh)
    notifyd completion fish | source

For every session: put the line into ~/.bashrc or ~/.zshrc (behind compinit), or the script into ~/.config/fish/completions/notifyd.fish.`
}

// Run prints the script.
func (c completionCmd) Run(p *process) error {
	_, err := fmt.Fprint(p.stdout, completionScripts[c.Shell])
	return err
}

// filesFit is what suggestCmd prints, alone on a line, where the names of files fit.
const filesFit = ":files"

// completionScripts hand the words before the cursor to suggestCmd.
var completionScripts = map[string]string{
	"bash": `_notifyd() {
    local word
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        if [ "$word" = ":files" ]; then
            compopt -o default
            return
        fi
        COMPREPLY+=("$word")
    done < <("${COMP_WORDS[0]}" suggest -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _notifyd notifyd
`,
	"zsh": `#compdef notifyd
_notifyd() {
    local line
    local -a words_and_help
    for line in "${(@f)$("${words[1]}" suggest -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            :files) _files; return ;;
            ?*) words_and_help+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done
    _describe notifyd words_and_help
}
compdef _notifyd notifyd
`,
	"fish": `function __notifyd_suggest
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    for line in ($before[1] suggest -- $before[2..-1] "$current" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c notifyd -f -a "(__notifyd_suggest)"
`,
}

// suggestCmd is for the scripts above.
type suggestCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// Run prints what may stand in place of the last word, a line each: the word, a tab and what it means.
func (c suggestCmd) Run(p *process, program *kong.Kong) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, s := range suggest(program.Model.Node, words) {
		if _, err := fmt.Fprintln(p.stdout, s); err != nil {
			return err
		}
	}
	return nil
}

// suggest gives the lines. words are those behind the program's name; the last one is not complete yet.
func suggest(node *kong.Node, words []string) (lines []string) {
	before := "" // of the last word, where that is --flag=value
	if len(words) == 0 {
		words = []string{""}
	} else if name, _, ok := strings.Cut(words[len(words)-1], "="); ok && name != "" {
		before = name + "="
	}
	words = splitFlags(words)
	last := words[len(words)-1]
	var waits *kong.Flag // a flag that the next word is the value of
	for _, word := range words[:len(words)-1] {
		switch {
		case waits != nil:
			waits = nil
		case strings.HasPrefix(word, "-"):
			if flag := flagOf(node, word); flag != nil && !flag.IsBool() {
				waits = flag
			}
		default:
			if i := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == word }); i >= 0 {
				node = node.Children[i]
			}
		}
	}
	add := func(word, help string) {
		if strings.HasPrefix(word, last) {
			help, _, _ = strings.Cut(help, "\n")
			lines = append(lines, before+word+"\t"+help)
		}
	}
	switch {
	case waits != nil && waits.Enum != "":
		for _, value := range waits.EnumSlice() {
			add(value, "")
		}
	case waits != nil:
		if strings.Contains(waits.PlaceHolder, "FILE") || strings.Contains(waits.PlaceHolder, "DIR") {
			return []string{filesFit}
		}
	case strings.HasPrefix(last, "-"):
		for _, group := range node.AllFlags(true) {
			for _, flag := range group {
				add("--"+flag.Name, flag.Help)
			}
		}
	default:
		for _, child := range node.Children {
			if !child.Hidden {
				add(child.Name, child.Help)
			}
		}
		for _, argument := range node.Positional {
			for _, value := range argument.EnumSlice() {
				add(value, "")
			}
		}
	}
	return lines
}

// splitFlags makes two words of --flag=value. bash has made three of it.
func splitFlags(words []string) (split []string) {
	for i, word := range words {
		name, value, ok := strings.Cut(word, "=")
		switch {
		case word == "=" && i > 0 && i+1 < len(words):
		case word == "=":
			split = append(split, "")
		case ok && strings.HasPrefix(word, "--"):
			split = append(split, name, value)
		default:
			split = append(split, word)
		}
	}
	return split
}

func flagOf(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			if word == "--"+flag.Name || flag.Short != 0 && word == "-"+string(flag.Short) {
				return flag
			}
		}
	}
	return nil
}
