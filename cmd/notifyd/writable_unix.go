//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// writable says why the folder cannot be written to, or be made, without changing anything.
func writable(dir string) error {
	const readWriteSearch = 7
	for path, missing := filepath.Clean(dir), false; ; path, missing = filepath.Dir(path), true {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path):
			continue
		case err == nil && !info.IsDir():
			err = &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
		case err == nil:
			if err = syscall.Access(path, readWriteSearch); err != nil {
				err = &fs.PathError{Op: "write", Path: path, Err: err}
			}
		}
		if err != nil && missing {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		return err
	}
}
