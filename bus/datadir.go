package bus

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// A dataDir is a locked directory.
type dataDir struct {
	path string
	temp bool
	lock *os.File
	node string // names this member in a cluster; JetStream wants it to outlive restarts
}

func openDataDir(path string) (*dataDir, error) {
	fail := func(err error, remedy string) (*dataDir, error) {
		return nil, optionError("DataDir", path, err, remedy)
	}
	d := &dataDir{path: path}
	var err error
	if path == "" {
		d.temp = true
		d.path, err = os.MkdirTemp("", "notifyd-")
	} else {
		err = os.MkdirAll(path, 0o700)
	}
	const writable = "name a directory that this process may write to"
	if err != nil {
		return fail(err, writable)
	}
	if d.lock, err = os.OpenFile(filepath.Join(d.path, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fail(err, writable)
	}
	if err = lockFile(d.lock); err != nil {
		return fail(errors.Join(err, d.lock.Close()), "another process uses it: end that one, or give each its own directory")
	}
	if d.node, err = nodeName(filepath.Join(d.path, "node")); err != nil {
		return fail(errors.Join(err, d.close()), writable)
	}
	return d, nil
}

// nodeName reads the name that the directory's first user chose.
func nodeName(file string) (string, error) {
	b, err := os.ReadFile(file)
	if name := strings.TrimSpace(string(b)); name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	name := newNodeName()
	return name, os.WriteFile(file, []byte(name), 0o600)
}

func newNodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return strings.ReplaceAll(host, " ", "-") + "-" + strings.ToLower(rand.Text()[:6])
}

func (d *dataDir) close() error {
	err := d.lock.Close() // and so unlocks
	if d.temp {
		err = errors.Join(err, os.RemoveAll(d.path))
	}
	return err
}
