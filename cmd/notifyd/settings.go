package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// settings feeds kong from the environment and from the file of --config. It decodes every value itself first, so that
// all problems are found in one go and not only the first, and so that a key that no flag knows is one of them.
// It is used by one goroutine.
type settings struct {
	env      map[string]string
	loaded   bool
	file     map[string]any // by flag name: a string, or a []any of strings for a list
	problems []string
}

func environ(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// envName gives the environment variable of a flag: auth.cache-entries is NOTIFYD_AUTH_CACHE_ENTRIES.
func envName(flag string) string {
	return "NOTIFYD_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

// yamlKey gives the path of a flag in the file: auth.cache-entries is auth.cache_entries.
func yamlKey(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// asks are the flags that ask for something instead of setting it.
var asks = map[string]bool{"help": true, "version": true}

// outsideFile lists the flags that say how this run goes, not how the server is configured.
var outsideFile = map[string]bool{"help": true, "version": true, "config": true, "health": true, "dev": true}

// load runs after the command line is parsed and before anything is resolved: it reads the file, if there is one. The
// parser calls it for the program and for the subcommand.
func (s *settings) load(ctx *kong.Context) error {
	if s.loaded {
		return nil
	}
	s.loaded = true
	byName := map[string]*kong.Flag{}
	for _, flag := range ctx.Flags() {
		byName[flag.Name] = flag
	}
	path := s.env[envName("config")]
	flag, reads := byName["config"]
	if !reads {
		return nil
	}
	s.checkEnvironment(ctx.Model.Node)
	if given, _ := ctx.FlagValue(flag).(string); given != "" {
		path = given
	}
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for name := range outsideFile {
		delete(byName, name)
	}
	f := fileReader{settings: s, path: path, flags: byName}
	if len(doc.Content) > 0 {
		f.read("", doc.Content[0])
	}
	return nil
}

// Resolve gives kong the value for a flag that the command line left out: the environment's, else the file's.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if asks[flag.Name] {
		return nil, nil
	}
	// An empty variable is the empty string where that means something, and unset elsewhere.
	if text, ok := s.env[envName(flag.Name)]; ok && (text != "" || flag.Target.Kind() == reflect.String) {
		if err := try(flag, text); err != nil {
			s.problem(envName(flag.Name), err.Error())
			return nil, nil
		}
		return text, nil
	}
	return s.file[flag.Name], nil
}

// Validate is part of kong.Resolver; load has reported everything already.
func (s *settings) Validate(*kong.Application) error { return nil }

func (s *settings) problem(where, what string) {
	s.problems = append(s.problems, where+": "+what)
}

// try decodes value as flag would, into a variable of its own.
func try(flag *kong.Flag, value any) error {
	target := reflect.New(flag.Target.Type()).Elem()
	err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(value, kong.FlagValueToken)}, target)
	if err != nil && flag.IsSlice() {
		return errors.New(goNotation.ReplaceAllString(err.Error(), ""))
	}
	return err
}

// goNotation is how the parser's error shows the whole list, before it says what is wrong with one element.
var goNotation = regexp.MustCompile(`^\[\]interface \{\}\{.*\} -> \S+: `)

// fileReader walks the YAML tree and files each leaf under the flag that it belongs to.
type fileReader struct {
	*settings
	path  string
	flags map[string]*kong.Flag
}

func (f *fileReader) read(prefix string, node *yaml.Node) {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // "auth:" with nothing below it
	}
	if node.Kind != yaml.MappingNode {
		f.problem(f.at(node), "expected keys and values, such as 'listen: 127.0.0.1:8080'")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := prefix + key.Value
		if seen[path] {
			f.problem(f.at(key), path+": given twice; remove one")
			continue
		}
		seen[path] = true
		if flag := f.flag(path); flag != nil {
			f.leaf(path, flag, value)
		} else if f.section(path) {
			f.read(path+".", value)
		} else {
			f.problem(f.at(key), path+": unknown key"+f.suggest(path))
		}
	}
}

func (f *fileReader) leaf(path string, flag *kong.Flag, node *yaml.Node) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	var value any
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return
	case node.Kind == yaml.SequenceNode && isListOfMappings(flag):
		text, err := yaml.Marshal(node)
		if err != nil {
			f.problem(f.at(node), path+": "+err.Error())
			return
		}
		value = string(text)
	case node.Kind == yaml.ScalarNode && flag.IsSlice():
		value = []any{node.Value}
	case node.Kind == yaml.ScalarNode:
		value = node.Value
	case node.Kind == yaml.SequenceNode && flag.IsSlice():
		list := []any{}
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				f.problem(f.at(item), path+": expected a list of plain values")
				return
			}
			list = append(list, item.Value)
		}
		value = list
	default:
		f.problem(f.at(node), path+": expected a plain value, or, where a key takes several, a list of them")
		return
	}
	if err := try(flag, value); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, "[") { // else it names the element of a list of mappings
				line = ": " + line
			}
			f.problem(f.at(node), path+line)
		}
		return
	}
	f.file[flag.Name] = value
}

// isListOfMappings says whether a flag takes a list as YAML.
func isListOfMappings(flag *kong.Flag) bool {
	switch flag.Target.Addr().Interface().(type) {
	case *issuerList, *streamList:
		return true
	}
	return false
}

func (f *fileReader) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", f.path, node.Line) }

// flag finds the flag whose YAML spelling is path.
func (f *fileReader) flag(path string) *kong.Flag {
	for name, flag := range f.flags {
		if yamlKey(name) == path {
			return flag
		}
	}
	return nil
}

func (f *fileReader) section(path string) bool {
	for name := range f.flags {
		if strings.HasPrefix(yamlKey(name), path+".") {
			return true
		}
	}
	return false
}

// suggest names the known key that is closest to path, if one is close.
func (f *fileReader) suggest(path string) string {
	var keys []string
	for name := range f.flags {
		keys = append(keys, yamlKey(name))
		if section, _, ok := strings.Cut(name, "."); ok {
			keys = append(keys, section)
		}
	}
	return didYouMean(path, keys)
}

func didYouMean(name string, names []string) string {
	sort.Strings(names)
	best, distance := "", 1+max(2, len(name)/4)
	for _, x := range names {
		if d := editDistance(name, x); d < distance {
			best, distance = x, d
		}
	}
	if best == "" {
		return "; docs/configuration.md lists the keys"
	}
	return "; did you mean " + best + "?"
}

// notOurs are variables that begin like ours: those that Kubernetes makes of a service whose name begins with
// "notifyd", and those of this project's tests.
var notOurs = regexp.MustCompile(`^NOTIFYD(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$|^NOTIFYD_(E2E|TEST|CHROMIUM)(_|$)`)

// checkEnvironment finds variables that no flag of any command reads. A misspelt one would be a setting that somebody
// believes in. Values are not shown: they may be secrets.
func (s *settings) checkEnvironment(program *kong.Node) {
	var known []string
	var collect func(*kong.Node)
	collect = func(n *kong.Node) {
		for _, flag := range n.Flags {
			if !asks[flag.Name] {
				known = append(known, envName(flag.Name))
			}
		}
		for _, child := range n.Children {
			collect(child)
		}
	}
	collect(program)
	var unknown []string
	for name := range s.env {
		if strings.HasPrefix(name, "NOTIFYD_") && !slices.Contains(known, name) && !notOurs.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	for _, name := range unknown {
		s.problem(name, "unknown variable"+didYouMean(name, known))
	}
}

// editDistance counts the single-byte insertions, deletions and substitutions that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
