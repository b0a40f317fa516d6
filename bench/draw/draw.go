// Package draw makes pictures of what the benchmarks measured. It is a package of its own so that fonts and everything
// else that drawing needs stay out of the programs that measure, notifyd among them.
package draw

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/notifyd/notifyd/bench/auth"
	"github.com/notifyd/notifyd/bench/load"
)

// Main draws the JSON of "notifyd bench --json", of "go run ./bench auth --json" or of "go run ./bench peers --json", the file that args name or what in
// has, as SVG to out.
func Main(args []string, in io.Reader, out io.Writer) error {
	if len(args) > 1 {
		return errors.New("one file at a time")
	}
	if len(args) == 1 {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return fmt.Errorf("this is no JSON object: %w", err)
	}
	switch {
	case members["results"] != nil:
		var r load.Report
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		return Load(out, "latency: "+r.Machine, r.Results)
	case members["connect"] != nil:
		var r auth.Report
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		return Auth(out, &r)
	case members["rows"] != nil:
		var c comparison
		if err := json.Unmarshal(text, &c); err != nil {
			return err
		}
		return rates(out, &c)
	}
	return errors.New("this JSON is not of notifyd bench, go run ./bench auth or go run ./bench peers")
}
