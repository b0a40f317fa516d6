//go:build linux

// Package rig is what the benchmarks share: the program under measurement as a
// process of its own, what the kernel says about it, and a client that adds as
// little as possible.
package rig

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/notifyd/notifyd/authz"
)

// Build compiles notifyd into dir and returns its path.
func Build(dir string) (bin string, err error) {
	bin = filepath.Join(dir, "notifyd")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/notifyd/notifyd/cmd/notifyd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
}

// NewKey makes a key and writes it to a file in dir, for --auth.keys.
func NewKey(dir, alg string) (key authz.Key, file string, err error) {
	if key, err = authz.GenerateKey(alg); err != nil {
		return key, "", err
	}
	jwk, err := key.MarshalJSON()
	if err != nil {
		return key, "", err
	}
	file = filepath.Join(dir, alg+".jwk")
	return key, file, os.WriteFile(file, jwk, 0o600)
}

// Server is a running "notifyd serve" on a port of 127.0.0.1 that the kernel
// chose. Its methods may be called from any goroutine.
type Server struct {
	Process
	Addr string
	cmd  *exec.Cmd
}

// Start runs bin with embedded defaults, no admin listener, as many connections from one
// address as a measurement needs, and args, until Stop or the end of this process.
func Start(bin string, args ...string) (*Server, error) {
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin.listen", "", "--log.format", "json", "--limits.connections-per-ip", "0"}, args...)
	s := &Server{cmd: exec.Command(bin, args...)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.Process = Process(s.cmd.Process.Pid)
	var said []string
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var line struct{ Msg, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
			s.Addr = line.Addr
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return s, nil
		}
		said = append(said, lines.Text())
	}
	s.Stop()
	return nil, fmt.Errorf("the server did not start:\n%s", strings.Join(said, "\n"))
}

// Stop kills the server and waits for its end.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
}
