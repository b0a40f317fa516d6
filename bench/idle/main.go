//go:build linux

// Idle measures what a subscribed connection that receives nothing costs the
// server in memory:
//
//	go run ./bench/idle [--connections 15000]
//
// It builds notifyd, starts it with embedded defaults, opens the connections
// over loopback, each subscribed to one of 100 topics, and divides the growth of
// the server's resident set (VmRSS in /proc/PID/status) by their number: right
// after the last subscribe, and again while they idle. The kernel's socket
// buffers are not part of it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/wire"
)

func main() {
	n := flag.Int("connections", 15000, "how many to open; each is a descriptor here and in the server")
	flag.Parse()
	if err := run(*n); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

const topics = 100

func run(n int) error {
	dir, err := os.MkdirTemp("", "notifyd-idle-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := start(dir)
	if err != nil {
		return err
	}
	defer s.stop()

	// The first connections touch code and tables that all share.
	if err := s.open(topics); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	before, err := s.rss()
	if err != nil {
		return err
	}
	began, cpu := time.Now(), s.cpu()
	if err := s.open(n); err != nil {
		return err
	}
	took := time.Since(began)
	per := func() float64 {
		after, err := s.rss()
		if err != nil {
			return 0
		}
		return float64(after-before) / float64(n)
	}
	fmt.Printf("%d connections, each with one subscription, opened in %v\n", n, took.Round(time.Millisecond))
	fmt.Printf("CPU per handshake and subscribe: %.0f µs\n", (s.cpu()-cpu).Seconds()*1e6/float64(n))
	fmt.Printf("RSS per connection: %.0f B at once", per())
	for _, wait := range []time.Duration{5, 10} {
		time.Sleep(wait * time.Second)
		fmt.Printf(", %.0f B %v later", per(), wait*time.Second)
	}
	fmt.Println()
	return nil
}

// process is a notifyd under measurement and the connections to it.
type process struct {
	cmd   *exec.Cmd
	addr  string
	token string
	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func start(dir string) (*process, error) {
	bin, key := filepath.Join(dir, "notifyd"), filepath.Join(dir, "key.jwk")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/notifyd/notifyd/cmd/notifyd").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	jwk, err := exec.Command(bin, "keys", "generate").Output()
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if err := os.WriteFile(key, jwk, 0o600); err != nil {
		return nil, err
	}
	token, err := exec.Command(bin, "token", "--key", key, "--sub", "idle", "--subscribe", ">", "--ttl", "1h").Output()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	p := &process{token: strings.TrimSpace(string(token))}
	p.cmd = exec.Command(bin, "serve", "--listen", "127.0.0.1:0", "--admin.listen", "", "--auth.keys", key, "--log.format", "json")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var line struct{ Msg, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
			p.addr = line.Addr
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return p, nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return nil, errors.New("the server did not start")
}

func (p *process) stop() {
	for _, c := range p.conns {
		_ = c.Close()
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// open adds n subscribed connections, 32 at a time.
func (p *process) open(n int) error {
	var wg sync.WaitGroup
	work, errs := make(chan int), make(chan error, 32)
	for range 32 {
		wg.Go(func() {
			for i := range work {
				if err := p.connect(i % topics); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (p *process) connect(topic int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, br, _, err := ws.Dialer{}.Dial(ctx, "ws://"+p.addr+wire.Path)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.conns = append(p.conns, conn)
	p.mu.Unlock()
	rw := struct {
		io.Reader
		io.Writer
	}{conn, conn}
	if br != nil { // the welcome came along with the handshake
		rw.Reader = io.MultiReader(br, conn)
	}
	if _, err := wsutil.ReadServerText(rw); err != nil {
		return err
	}
	subscribe := wire.AppendSubscribe(nil, "1", "idle."+strconv.Itoa(topic), p.token)
	if err := wsutil.WriteClientText(conn, subscribe); err != nil {
		return err
	}
	ack, err := wsutil.ReadServerText(rw)
	if err == nil && !bytes.Contains(ack, []byte(`"type":"ack"`)) {
		err = fmt.Errorf("subscribe was answered with %s", ack)
	}
	return err
}

func (p *process) rss() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// cpu is the processor time that the server has used; the kernel counts it in
// hundredths of a second.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime, stime
		n, _ := strconv.Atoi(f)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
