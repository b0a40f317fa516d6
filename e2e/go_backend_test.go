//go:build linux

package e2e

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// goBackend runs the shop of docs/backends/go.md, and loads its page again and again while an answer comes.
func goBackend(t *testing.T, d *document) {
	needProgram(t, "curl")
	folder := t.TempDir()
	b := newBackend(t, d, folder)
	install := d.next(t, "sh").commands()
	if !slices.Equal(install, []string{"go mod init example.com/shop", "go get github.com/golang-jwt/jwt/v5"}) {
		t.Errorf("the page installs with %q", install)
	}
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	jwt := regexp.MustCompile(`github.com/golang-jwt/jwt/v5 \S+`).FindString(string(module))
	write(t, folder, "go.mod", "module example.com/shop\n\ngo 1.26\n\nrequire "+jwt+"\n")
	write(t, folder, "go.sum", string(sums))
	b.files(t, d, "go", 2)
	shop := openTerminal(t, "shop", folder, "NOTIFYD_HTTP=http://"+b.node.address())
	shop.leave(t, d.next(t, "sh").commands()[0])
	shop.awaitText(t, "the shop is on http://"+b.place+"/")
	b.tryShop(t, d, func(node *server) (string, error) {
		write(t, folder, "publish_test.go", `package main

import (
	"testing"
	"time"
)

func TestPublish(t *testing.T) {
	n, err := open()
	if err != nil {
		t.Fatal(err)
	}
	token, err := n.mint("shop", grants{Publish: []string{"users.>"}}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.publish(token, "users.42.orders", "1", 1); err != nil {
		t.Fatal(err)
	}
}
`)
		return b.try(node, "go", "test", ".")
	})

	page := d.next(t, "html", "127.0.0.1:8080", b.node.address())
	write(t, folder, page.file, page.text)
	chrome := browser{startScript(t, "page.mjs", chromium(t))}
	home := "http://" + b.place + "/"
	eventually(t, "an answer comes slowly enough to be loaded again in the middle", func() bool {
		chrome.do(t, home, "task", map[string]any{"source": "document.querySelector('button').click()"})
		return readAnswer(t, chrome, home) > 0
	})
}
