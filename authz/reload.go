package authz

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// source is where some keys of an issuer come from: a file, a URL or memory.
type source struct {
	file     string    // "" if it is none
	endpoint *endpoint // nil if it is no URL
	reading            // guarded by Verifier.reload
	tooOld   bool      // and that was reported; guarded by Verifier.reload
	asked    bool      // Reload has the endpoint fetched; guarded by Verifier.reload
}

// reading is what a source held when it was last read.
type reading struct {
	keys    []Key
	skipped []error     // entries of a set that are not trusted
	info    os.FileInfo // which state of the file that was
	fetched time.Time   // when the fetch began; zero for what came from a file or memory
}

// load fills the sources of every issuer for the first time.
func (v *Verifier) load(ctx context.Context) error {
	v.reload.Lock()
	defer v.reload.Unlock()
	var remote []*source
	for _, is := range v.issuers {
		for _, name := range is.Keys {
			from := &source{file: name}
			if isURL(name) {
				to, err := newEndpoint(name, &v.options)
				if err != nil {
					return err
				}
				from = &source{endpoint: to}
				is.remote = append(is.remote, from)
				remote = append(remote, from)
			}
			is.sources = append(is.sources, from)
		}
		is.sources = append(is.sources, &source{reading: reading{keys: is.Trusted}})
	}
	read, err := v.readFiles(func(*source) bool { return true })
	if err != nil {
		return err
	}
	away := fetchAll(ctx, remote)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err = v.install(read)
	switch {
	case err != nil:
		return err
	case len(v.keys.Load().all) == 0:
		return errors.Join(away...) // nothing could be accepted
	}
	for _, err := range away {
		v.loadErrors.Add(1)
		if v.options.OnKeyError != nil {
			v.options.OnKeyError(err)
		}
	}
	return nil
}

// fetchAll fetches all URLs at once, and gives the errors of those that could not be
// fetched. An issuer that does not answer now does not stop the others; its tokens are
// unavailable until it does. The client has a timeout.
func fetchAll(ctx context.Context, remote []*source) (away []error) {
	errs := make([]error, len(remote))
	var running sync.WaitGroup
	for i, from := range remote {
		running.Go(func() {
			if from.reading, errs[i] = from.endpoint.get(ctx); errs[i] != nil {
				from.endpoint.missed()
			}
		})
	}
	running.Wait()
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// read reads the file of a source.
func (s *source) read() (r reading, err error) {
	if r.info, err = os.Stat(s.file); err != nil {
		return r, fmt.Errorf("key file: %w", err)
	}
	r.keys, r.skipped, err = ReadKeys(s.file)
	return r, err
}

// changed reports whether the file is another than was read, or has gone.
func (s *source) changed() bool {
	info, err := os.Stat(s.file)
	return err != nil || !os.SameFile(info, s.info) || !info.ModTime().Equal(s.info.ModTime()) || info.Size() != s.info.Size()
}

// Run keeps the keys up to date until ctx ends: it fetches URLs again every
// JWKSRefresh, and reads files again within seconds of a change. Reload says
// what happens to tokens then. Errors go to OnKeyError, and the keys that were
// there before stay. New does not call it; one goroutine of the owner's does.
func (v *Verifier) Run(ctx context.Context) {
	files := time.NewTicker(v.filePoll)
	defer files.Stop()
	urls := time.NewTicker(min(v.options.JWKSRefresh, v.options.JWKSCooldown))
	defer urls.Stop()
	outage := time.NewTicker(time.Second)
	defer outage.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-outage.C:
			v.noticeOutage()
		case <-files.C:
			v.pollFiles()
		case <-urls.C:
			v.noticeAge()
			for _, is := range v.issuers {
				for _, from := range is.remote {
					if _, due := from.endpoint.state(); due {
						v.beginFetch(from)
					}
				}
			}
		}
	}
}

// pollFiles reads the files that changed. What cannot be used is tried again each
// time, as it may have been half written, or another file may have to change
// with it; the same error is reported once.
func (v *Verifier) pollFiles() {
	v.reload.Lock()
	read, err := v.readFiles((*source).changed)
	fell := false
	var loaded []KeysLoaded
	if len(read) > 0 { // a broken file does not keep a key alive in another
		loaded = changes(read, false)
		var unfit error
		if fell, unfit = v.install(read); unfit != nil {
			loaded = nil
		}
		err = errors.Join(err, unfit)
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	news := fell || len(read) > 0 && err == nil || text != "" && text != v.fileError
	v.fileError = text
	v.reload.Unlock()
	v.reportLoaded(loaded)
	if news {
		v.loaded(fell, err)
	}
}

// expires is the first Unix nanosecond at which what was read counts no more.
func (r *reading) expires(maxAge time.Duration) int64 {
	if r.fetched.IsZero() || maxAge < 0 {
		return math.MaxInt64
	}
	return r.fetched.Add(maxAge).UnixNano()
}

// noticeAge reports the key sets that have become too old, each once. Check refuses
// their tokens by itself.
func (v *Verifier) noticeAge() {
	var reports []error
	v.reload.Lock()
	for _, is := range v.issuers {
		for _, from := range is.remote {
			if from.tooOld || v.options.Now().UnixNano() < from.expires(v.options.JWKSMaxAge) {
				continue
			}
			from.tooOld = true
			reports = append(reports, fmt.Errorf("JWK Set %s: the last fetch that succeeded is older than %v (auth.jwks_max_age); tokens of its keys are unavailable until one succeeds",
				from.endpoint.name, v.options.JWKSMaxAge))
		}
	}
	v.reload.Unlock()
	for _, err := range reports {
		if v.options.OnKeySetTooOld != nil {
			v.options.OnKeySetTooOld(err)
		}
	}
	if len(reports) > 0 {
		v.changed()
	}
}

// keySetAge is the time since the last fetch that succeeded, of the URL for which it
// is longest; 0 without URLs, and math.MaxInt64 where there was none.
func (v *Verifier) keySetAge() (age time.Duration) {
	v.reload.Lock()
	defer v.reload.Unlock()
	for _, is := range v.issuers {
		for _, from := range is.remote {
			if from.fetched.IsZero() {
				return math.MaxInt64
			}
			age = max(age, v.options.Now().Sub(from.fetched))
		}
	}
	return age
}

// Reload reads all key files again, those that changed and the others, and has
// the URLs fetched in the background. What was verified with a key that is now
// gone, or that is another under the same kid, falls at once: Check refuses it,
// also where it is held already. Tokens of keys that stay are still remembered.
// On an error nothing changes.
func (v *Verifier) Reload() error {
	v.reload.Lock()
	read, err := v.readFiles(func(*source) bool { return true })
	loaded := changes(read, true)
	fell := false
	if err == nil {
		fell, err = v.install(read)
	}
	if err != nil {
		loaded = nil
	}
	urls := 0
	for _, is := range v.issuers {
		for _, from := range is.remote {
			urls++
			from.asked = true
			v.beginFetch(from)
		}
	}
	if urls+len(read) == 0 && err == nil {
		loaded = []KeysLoaded{{Source: "memory"}}
	}
	v.reload.Unlock()
	v.reportLoaded(loaded)
	if fell {
		v.changed()
	}
	return err
}

// changes compares what was read of sources with what they hold: those that differ, or
// all. Verifier.reload is held.
func changes(read map[*source]reading, all bool) (list []KeysLoaded) {
	for from, now := range read {
		loaded := KeysLoaded{from.name(), kids(now.keys, from.keys), kids(from.keys, now.keys)}
		if all || len(loaded.Added)+len(loaded.Removed) > 0 {
			list = append(list, loaded)
		}
	}
	slices.SortFunc(list, func(a, b KeysLoaded) int { return strings.Compare(a.Source, b.Source) })
	return list
}

// kids names the keys that are not among others.
func kids(keys, others []Key) (names []string) {
	for _, key := range keys {
		switch {
		case slices.ContainsFunc(others, key.same):
		case !key.named && key.alg == "HS256": // its thumbprint is a hash of the secret
			names = append(names, "(no kid)")
		default:
			names = append(names, key.kid)
		}
	}
	return names
}

func (s *source) name() string {
	if s.endpoint != nil {
		return s.endpoint.name
	}
	return s.file
}

// reportLoaded is called without v.reload.
func (v *Verifier) reportLoaded(list []KeysLoaded) {
	if v.options.OnKeysLoaded == nil {
		return
	}
	for _, loaded := range list {
		v.options.OnKeysLoaded(loaded)
	}
}

// SetKeys replaces the keys of the issuer that Options describes without
// Issuers, except those of URLs, with the same effects as Reload. Its files are
// not read any more.
func (v *Verifier) SetKeys(keys []Key) error {
	if v.flat == nil {
		return errors.New("no keys are configured outside the list of issuers; set them there")
	}
	v.reload.Lock()
	old := v.flat.sources
	v.flat.sources = append(slices.Clone(v.flat.remote), &source{reading: reading{keys: slices.Clone(keys)}})
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

// readFiles reads those files that are wanted. The error joins those of files
// that could not be read. v.reload is held.
func (v *Verifier) readFiles(wanted func(*source) bool) (read map[*source]reading, failed error) {
	read = map[*source]reading{}
	for _, is := range v.issuers {
		for _, from := range is.sources {
			if from.file == "" || !wanted(from) {
				continue
			}
			now, err := from.read()
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			read[from] = now
		}
	}
	return read, failed
}

// install gives some sources what was read of them, trusts what all sources have then, and
// reports whether some keys fell by that. On an error it changes nothing.
// v.reload is held.
func (v *Verifier) install(read map[*source]reading) (fell bool, err error) {
	swap := func() {
		for to := range read {
			read[to], to.reading = to.reading, read[to]
		}
	}
	swap()
	old := v.keys.Load()
	next, err := newKeySet(v.issuers, old, v.options.JWKSMaxAge, v.trust)
	if err != nil {
		swap()
		return false, err
	}
	for to := range read {
		to.tooOld = false
	}
	for _, c := range next.all {
		c.expires.Store(c.until)
	}
	v.keys.Store(next)
	v.reportSkipped()
	return old.retire(next), nil
}

// reportSkipped reports the entries that are not trusted, each once for as long as
// it stays as it is. v.reload is held.
func (v *Verifier) reportSkipped() {
	reported := map[string]bool{}
	for _, is := range v.issuers {
		for _, from := range is.sources {
			for _, err := range from.skipped {
				text := err.Error()
				if !v.skipped[text] && !reported[text] && v.options.OnKeySkipped != nil {
					v.options.OnKeySkipped(err)
				}
				reported[text] = true
			}
		}
	}
	v.skipped = reported
}
