// Command notifyd is the server and the tools around it: serve, pub, sub, keys, token, revoke, inspect, doctor, streams, check,
// bench, completion, version.
//
// main.go parses and dispatches. config.go is everything that serve can be told, settings.go where the values come from,
// config_check.go what must hold between them. Each subcommand has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line or the configuration is wrong
)

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run the server (Linux)."`
	Pub     pubCmd     `cmd:"" help:"Publish one event, or one for each line of standard input."`
	Sub     subCmd     `cmd:"" help:"Print the events of topics and patterns, one a line."`
	Token   tokenCmd   `cmd:"" help:"Make a token: who may publish and subscribe to what, until when."`
	Keys    keysCmd    `cmd:"" help:"Make keys that sign tokens."`
	Revoke  revokeCmd  `cmd:"" help:"Take back a token, or all of a subject."`
	Inspect inspectCmd `cmd:"" help:"Show what a token says, and with --keys whether it is valid."`
	Doctor  doctorCmd  `cmd:"" help:"Say where the way to a server breaks, and what to do."`
	Streams streamsCmd `cmd:"" help:"Show the streams of a node: what they keep, and how far it has read them."`
	Check   checkCmd   `cmd:"" help:"Say what is wrong with a configuration."`
	Bench   benchCmd   `cmd:"" help:"Put a server under load and measure what it costs (Linux)."`
	Version versionCmd `cmd:"" help:"Print the version."`

	Completion completionCmd `cmd:"" help:"Print what makes a shell complete commands and flags."`
	Suggest    suggestCmd    `cmd:"" hidden:""`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version, like the command."`
}

const description = `notifyd pushes events to WebSocket clients. Every message carries its own token (a JWT), which is checked for each frame.

Try it: 'notifyd serve --dev' in one terminal, and in others the two lines that it prints.

Every flag can be an environment variable: --auth.issuer is NOTIFYD_AUTH_ISSUER, --token is NOTIFYD_TOKEN.`

// process is what a command may use of the world. Tests run commands with one of their own.
type process struct {
	ctx    context.Context // ends with SIGINT or SIGTERM
	env    map[string]string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// usageError makes the exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	abortOnPanic()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(&process{ctx, environ(os.Environ()), os.Stdin, os.Stdout, os.Stderr}, os.Args[1:]))
}

// errTold makes the exit code 1 of a command that has said itself what is wrong.
var errTold = errors.New("told")

// exited is the panic with which --help leaves the parser.
type exited int

// run is main without the process: it gives the exit code.
func run(p *process, args []string) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	p.stderr = &sharedWriter{to: p.stderr}
	s := &settings{env: p.env, file: map[string]any{}}
	parser := newParser(p, s, &cli{})
	ctx, err := parser.Parse(args)
	if err != nil {
		p.complain(err)
		_, _ = fmt.Fprintf(p.stderr, "Run 'notifyd%s --help' to learn more.\n", command(err))
		return exitUsage
	}
	if len(s.problems) > 0 && ctx.Command() != "check" { // check reports them with its own
		p.complain(errors.New(strings.Join(s.problems, "\n")))
		return exitUsage
	}
	if err := ctx.Run(p, s); err != nil {
		if !errors.Is(err, errTold) {
			p.complain(err)
			if next := advice(ctx.Command(), err); next != "" {
				_, _ = fmt.Fprintln(p.stderr, next)
			}
		}
		if errors.As(err, &usageError{}) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

func newParser(p *process, s *settings, grammar *cli) *kong.Kong {
	return kong.Must(grammar,
		kong.Name("notifyd"),
		kong.Description(description),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.WithBeforeResolve(s.load),
		kong.Resolvers(s),
		kong.Vars{"version": "notifyd " + versionText(), "alg": "EdDSA", "load": "--window 32"}, // bench's defaults, which a scenario may set
	)
}

// command names the subcommand that a parse error is about, with a space before it.
func command(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return strings.TrimPrefix(node.FullPath(), "notifyd")
		}
	}
	return ""
}

// sharedWriter is a writer for several goroutines: the client tells of its connection while a command complains.
type sharedWriter struct {
	mu sync.Mutex
	to io.Writer // guarded by mu
}

func (w *sharedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// complain writes an error to the terminal, one line for each problem.
func (p *process) complain(err error) {
	for line := range strings.SplitSeq(redact(err.Error()), "\n") {
		_, _ = fmt.Fprintln(p.stderr, "notifyd: "+line)
	}
}

// jwt matches what looks like a token: base64url of a JSON object begins with eyJ. A URL's query may hold one too.
var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*)*|(access_token|ticket)=[^&\s"']+`)

// redact keeps tokens out of what is shown: a token in the wrong place on the command line is quoted by the parser.
func redact(text string) string { return jwt.ReplaceAllString(text, "[token]") }
