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
	_, err := v.readFiles()
	return err
}

// Reload reads all key files again, those that changed and the others. What was
// verified with a key that is now gone, or that is another under the same kid,
// falls at once: Check refuses it, also where it is held already. Tokens of
// keys that stay are still remembered. On an error nothing changes.
func (v *Verifier) Reload() error {
	v.reload.Lock()
	fell, err := v.readFiles()
	v.reload.Unlock()
	if fell {
		v.changed()
	}
	return err
}

// SetKeys replaces the keys of the issuer that Options describes without
// Issuers, with the same effects as Reload; its files are not read any more.
func (v *Verifier) SetKeys(keys []Key) error {
	if v.flat == nil {
		return errors.New("no keys are configured outside the list of issuers; set them there")
	}
	v.reload.Lock()
	old := v.flat.sources
	v.flat.sources = []*source{{keys: slices.Clone(keys)}}
	fell, err := v.install(nil)
	if err != nil {
		v.flat.sources = old
	}
	v.reload.Unlock()
	if fell {
		v.changed()
	}
	return err
}

// readFiles reads every file and installs what it holds, or changes nothing.
// v.reload is held.
func (v *Verifier) readFiles() (fell bool, err error) {
	read := map[*source][]Key{}
	for _, is := range v.issuers {
		for _, from := range is.sources {
			if from.name == "" {
				continue
			}
			if read[from], err = LoadKeys(from.name); err != nil {
				return false, err
			}
		}
	}
	return v.install(read)
}

// install gives some sources other keys, trusts what all sources have then, and
// reports whether some keys fell by that. On an error it changes nothing.
// v.reload is held.
func (v *Verifier) install(keys map[*source][]Key) (fell bool, err error) {
	swap := func() {
		for to := range keys {
			keys[to], to.keys = to.keys, keys[to]
		}
	}
	swap()
	old := v.keys.Load()
	next, err := newKeySet(v.issuers, old, v.trust)
	if err != nil {
		swap()
		return false, err
	}
	v.keys.Store(next)
	return old.retire(next), nil
}
