package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and revision are set by the linker for a release: -X main.version=v1.2.3 -X main.revision=COMMIT.
var version, revision string

type versionCmd struct{}

// Run prints the version, the commit that it was built from, and the toolchain.
func (versionCmd) Run(p *process) error {
	_, err := fmt.Fprintln(p.stdout, "notifyd", versionText())
	return err
}

// built says what this program was built from: what the linker was told, or else what Go knows. commit may be empty.
func built() (release, commit string) {
	release, commit = version, revision
	if info, ok := debug.ReadBuildInfo(); ok {
		if release == "" {
			release = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && commit == "" {
				commit = s.Value
			}
		}
	}
	if release == "" {
		release = "(devel)"
	}
	return release, commit
}

func versionText() string {
	release, commit := built()
	if len(commit) >= 12 {
		release += " " + commit[:12]
	}
	return fmt.Sprintf("%s %s %s/%s", release, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
