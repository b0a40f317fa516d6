//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// people are persons at pages in one Chromium, each with cookies and storage of their own.
type people struct {
	script
	page string
}

// seen is what a page shows.
type seen struct {
	Text, Title, Address string
	Wrong                []string
}

func (p people) do(t *testing.T, who string, order map[string]any) (s seen) {
	t.Helper()
	from := p.says.len()
	order["who"] = who
	p.tell(t, order)
	p.hear(t, from, &s)
	if len(s.Wrong) > 0 {
		t.Fatalf("%s, %v: %q; the page shows %q", who, order, s.Wrong, s.Text)
	}
	return s
}

func (p people) open(t *testing.T, who, path string) {
	t.Helper()
	p.do(t, who, map[string]any{"go": p.page + path})
}

func (p people) reload(t *testing.T, who string) {
	t.Helper()
	p.do(t, who, map[string]any{"reload": true})
}

func (p people) click(t *testing.T, who, label string) {
	t.Helper()
	p.do(t, who, map[string]any{"click": label})
}

func (p people) write(t *testing.T, who, label, text string) {
	t.Helper()
	p.do(t, who, map[string]any{"write": text, "into": label})
}

func (p people) look(t *testing.T, who string) seen {
	t.Helper()
	return p.do(t, who, map[string]any{"look": true})
}

// sees waits until somebody's page shows these texts, in this order.
func (p people) sees(t *testing.T, who string, texts ...string) {
	t.Helper()
	parts := make([]string, len(texts))
	for i, text := range texts {
		parts[i] = regexp.QuoteMeta(text)
	}
	want := regexp.MustCompile("(?s)" + strings.Join(parts, ".*"))
	eventually(t, who+" sees "+strings.Join(texts, " … "), func() bool { return want.MatchString(p.look(t, who).Text) })
}

// audit has axe-core look at a page, which finds nothing.
func (p people) audit(t *testing.T, who string) {
	t.Helper()
	p.do(t, who, map[string]any{"audit": "../web/console/node_modules/axe-core/axe.min.js"})
}

// picture has a page's picture taken, where E2E_PICTURES names a folder for them.
func (p people) picture(t *testing.T, who string) {
	t.Helper()
	if folder := os.Getenv("E2E_PICTURES"); folder != "" {
		p.do(t, who, map[string]any{"picture": filepath.Join(folder, strings.ReplaceAll(t.Name(), "/", "-")+"-"+who+".png")})
	}
}

var bundler = regexp.MustCompile(`github\.com/evanw/esbuild/cmd/esbuild@v[\d.]+`)

// The five examples, started by the command of their README, used as a person uses them.
func TestExamplePages(t *testing.T) {
	t.Parallel()
	examples := map[string]func(*testing.T, people){
		"chat": chatExample, "orders": ordersExample, "metrics": metricsExample, "bell": bellExample, "answer": answerExample,
	}
	folders, err := filepath.Glob("../examples/*/index.html")
	if err != nil || len(folders) != len(examples) {
		t.Errorf("%q, %v, but %d tests", folders, err, len(examples))
	}
	// One build of what all of them use, instead of five at once.
	text, err := os.ReadFile("../examples/internal/demo/demo.go")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "run", bundler.FindString(string(text)), "--version").CombinedOutput(); err != nil {
		t.Fatalf("esbuild: %v\n%s", err, out)
	}
	for name, use := range examples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join("../examples", name)
			lines := 0
			for _, file := range []string{"main.go", "index.html"} {
				text, err := os.ReadFile(filepath.Join(folder, file))
				if err != nil {
					t.Fatal(err)
				}
				lines += strings.Count(string(text), "\n")
			}
			if lines > 150 {
				t.Errorf("%d lines: that is no small example any more", lines)
			}
			d := readDocument(t, "examples/"+name+"/README.md")
			needConsolePackages(t)
			browser := startScript(t, "people.mjs", chromium(t))
			page := freeAddress(t)
			command := d.next(t, "sh").commands()[0] + " -notifyd " + freeAddress(t) + " -listen " + page
			if name != "chat" { // which builds it as a reader does
				command += " -program " + binary(t)
			}
			words := strings.Fields(command)
			cmd := exec.Command(words[0], words[1:]...)
			cmd.Dir = ".."
			temporary := t.TempDir()
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
			p := start(t, name, cmd)
			p.output.await(t, "address of the page", 0, func(line string) bool { return strings.Contains(line, "the page is on http://"+page+"/") })
			use(t, people{browser, "http://" + page})

			// Ctrl-C, which a terminal sends to all.
			if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the server has ended, and nothing is left of it", func() bool {
				left, err := filepath.Glob(filepath.Join(temporary, "notifyd-*"))
				return err == nil && len(left) == 0
			})
			if d.used != len(d.blocks) {
				t.Errorf("nothing runs %q", d.blocks[d.used].text)
			}
		})
	}
}

func chatExample(t *testing.T, p people) {
	p.open(t, "ann", "/?person=ann")
	p.open(t, "bob", "/?person=bob")
	p.write(t, "ann", "Message", "hello all")
	p.sees(t, "bob", "ann hello all")
	p.write(t, "bob", "Message", "hello ann")
	p.sees(t, "ann", "ann hello all", "bob hello ann")

	// In private, which ann's page counts until she looks.
	p.click(t, "bob", "with ann")
	p.write(t, "bob", "Message", "<b>just</b> for you")
	p.sees(t, "ann", "with bob1")
	p.click(t, "ann", "with bob")
	p.sees(t, "ann", "bob <b>just</b> for you")
	p.audit(t, "ann")
	p.picture(t, "ann")
	for _, who := range []string{"ann", "bob"} {
		p.reload(t, who)
		p.sees(t, who, "lobby", "with ")
		p.click(t, who, "with "+map[string]string{"ann": "bob", "bob": "ann"}[who])
		p.sees(t, who, "bob <b>just</b> for you")
	}

	// Carol asks for that room, and for leave to write there.
	p.open(t, "carol", "/?person=carol&room=ann-bob")
	p.sees(t, "carol", "forbidden")
	p.audit(t, "carol")
	p.picture(t, "carol")
	p.write(t, "carol", "Message", "it is me, ann")
	p.sees(t, "carol", "not sent: forbidden")
	p.click(t, "carol", "lobby")
	p.sees(t, "carol", "ann hello all", "bob hello ann")
	for _, who := range []string{"ann", "bob", "carol"} {
		if s := p.look(t, who); strings.Contains(s.Text, "it is me") || who == "carol" && strings.Contains(s.Text, "just") {
			t.Errorf("%s sees %q", who, s.Text)
		}
	}
}

func ordersExample(t *testing.T, p people) {
	p.open(t, "ann", "")
	p.sees(t, "ann", "connected")
	p.click(t, "ann", "Order something")
	p.sees(t, "ann", "Order 1", "received")
	p.click(t, "ann", "Order something")
	p.reload(t, "ann") // on the way
	p.sees(t, "ann", "Order 2", "received")
	p.open(t, "a second window", "")
	state := `(received|paid|packed|shipped)\s+\d+:\d+:\d+.*`
	done := regexp.MustCompile("(?s)Order 2" + strings.Repeat(`\s+`+state, 4) + "Order 1" + strings.Repeat(`\s+`+state, 4))
	for _, who := range []string{"ann", "a second window"} {
		eventually(t, who+" sees two orders through all states", func() bool { return done.MatchString(p.look(t, who).Text) })
	}
	p.audit(t, "ann")
	p.picture(t, "ann")
}

func metricsExample(t *testing.T, p people) {
	machine := regexp.MustCompile(`(\w{3}-\d)\s+cpu\s+(\d+)\s+memory\s+(\d+)\s+requests\s+(\d+)`)
	wall := func(who string) (figures []string) {
		for _, m := range machine.FindAllStringSubmatch(p.look(t, who).Text, -1) {
			figures = append(figures, m[1:]...)
		}
		return figures
	}
	p.open(t, "ann", "")
	var before []string
	eventually(t, "six machines are shown with all figures", func() bool {
		before = wall("ann")
		return len(before) == 6*4
	})
	eventually(t, "the figures change", func() bool { return !slices.Equal(wall("ann"), before) })
	p.reload(t, "ann")
	eventually(t, "six machines are shown again", func() bool { return len(wall("ann")) == 6*4 })
	p.audit(t, "ann")
	p.picture(t, "ann")
}

func bellExample(t *testing.T, p people) {
	unread := func(title string) {
		t.Helper()
		eventually(t, "the title says "+title, func() bool { return p.look(t, "ann").Title == title })
	}
	p.open(t, "ann", "")
	for range 3 {
		p.click(t, "ann", "Make something happen")
	}
	unread("(3) Bell")
	p.reload(t, "ann")
	unread("(3) Bell")
	p.click(t, "ann", "Notices")
	p.sees(t, "ann", "Carol likes your photo", "Your invoice is ready", "Bob has answered you")
	p.audit(t, "ann")
	p.picture(t, "ann")
	p.click(t, "ann", "Notices")
	unread("Bell")
	p.reload(t, "ann")
	p.sees(t, "ann", "connected")
	p.click(t, "ann", "Make something happen")
	unread("(1) Bell")
	p.reload(t, "ann")
	unread("(1) Bell")
	p.open(t, "ann on another device", "")
	p.sees(t, "ann on another device", "Notices4")
}

func answerExample(t *testing.T, p people) {
	answer := func(s seen) string {
		_, text, _ := strings.Cut(s.Text, "You asked: ")
		text, _, _ = strings.Cut(text, "\n")
		return strings.TrimSpace(text)
	}
	const end = "every word once and in order."
	p.open(t, "ann", "")
	var parts []string
	for attempt := 1; len(parts) == 0; attempt++ { // a slow machine sees the whole answer at its first look
		if attempt > 5 {
			t.Fatal("the page was never loaded again in the middle of an answer")
		}
		before := p.look(t, "ann").Address
		p.write(t, "ann", "Question", "Why is the sky blue?")
		eventually(t, "the answer is whole", func() bool {
			s := p.look(t, "ann")
			if s.Address == before {
				return false
			}
			part := answer(s)
			if strings.HasSuffix(part, end) {
				return true
			}
			if part != "" && (len(parts) == 0 || len(part) > len(parts[len(parts)-1])) {
				parts = append(parts, part)
				p.reload(t, "ann")
			}
			return false
		})
	}
	p.audit(t, "ann")
	p.picture(t, "ann")
	whole := answer(p.look(t, "ann"))
	p.open(t, "a friend", strings.TrimPrefix(p.look(t, "ann").Address, p.page))
	eventually(t, "a friend who comes afterwards sees the same", func() bool { return answer(p.look(t, "a friend")) == whole })
	for _, part := range parts {
		if !strings.HasPrefix(whole, part) {
			t.Errorf("the page has shown %q of %q", part, whole)
		}
	}
	if want := "Why is the sky blue? That is a good question. Each word of this answer is an event"; !strings.HasPrefix(whole, want) {
		t.Errorf("the answer is %q", whole)
	}
}
