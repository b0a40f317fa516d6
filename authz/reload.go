package authz

import (
	"errors"
	"slices"
)

// load fills the sources of every issuer for the first time.
func (v *Verifier) load() error {
	v.reload.Lock()
	defer v.reload.Unlock()
	for _, is := range v.issuers {
		for _, name := range is.Keys {
			is.sources = append(is.sources, &source{name: name})
		}
		is.sources = append(is.sources, &source{keys: is.Trusted})
	}
	return v.readFiles()
}

// Reload reads all key files again, those that changed and the others. What was
// verified with a key that is now gone, or that is another under the same kid,
// falls at once: Check refuses it, also where it is held already. Tokens of
// keys that stay are still remembered. On an error nothing changes.
func (v *Verifier) Reload() error {
	v.reload.Lock()
	defer v.reload.Unlock()
	return v.readFiles()
}

// SetKeys replaces the keys of the issuer that Options describes without
// Issuers, with the same effects as Reload; its files are not read any more.
func (v *Verifier) SetKeys(keys []Key) error {
	if v.flat == nil {
		return errors.New("no keys are configured outside the list of issuers; set them there")
	}
	v.reload.Lock()
	defer v.reload.Unlock()
	old := v.flat.sources
	v.flat.sources = []*source{{keys: slices.Clone(keys)}}
	if err := v.install(); err != nil {
		v.flat.sources = old
		return err
	}
	return nil
}

// readFiles reads every file and installs what it holds, or changes nothing.
// v.reload is held.
func (v *Verifier) readFiles() error {
	type change struct {
		to   *source
		keys []Key
	}
	var undo []change
	err := func() error {
		for _, is := range v.issuers {
			for _, from := range is.sources {
				if from.name == "" {
					continue
				}
				keys, err := LoadKeys(from.name)
				if err != nil {
					return err
				}
				undo = append(undo, change{from, from.keys})
				from.keys = keys
			}
		}
		return v.install()
	}()
	if err != nil {
		for _, c := range undo {
			c.to.keys = c.keys
		}
	}
	return err
}

// install trusts the keys that the sources have now. On an error it changes
// nothing. v.reload is held.
func (v *Verifier) install() error {
	old := v.keys.Load()
	next, err := newKeySet(v.issuers, old, v.newParser)
	if err != nil {
		return err
	}
	v.keys.Store(next)
	if old != nil {
		old.retire(next)
	}
	return nil
}
