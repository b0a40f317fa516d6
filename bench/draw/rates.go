package draw

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// comparison is what Rates needs of the JSON of "go run ./bench peers --json".
type comparison struct {
	CPU  string `json:"cpu"`
	Rows []struct {
		Scenario string    `json:"scenario"`
		Server   string    `json:"server"`
		Metric   string    `json:"metric"`
		Values   []float64 `json:"values"` // one a round
		Median   float64   `json:"median"` // µs
	} `json:"rows"`
}

// openLoop is the name of a scenario with a rate of events a second.
var openLoop = regexp.MustCompile(`^(.+)-r([0-9]+)$`)

// rates draws, as SVG, latency p99 against the rate of events, for each server and each scenario that was measured at two rates
// or more. Both axes are logarithmic.
func rates(w io.Writer, c *comparison) error {
	lines := map[string]plotter.XYs{}
	for _, r := range c.Rows {
		if m := openLoop.FindStringSubmatch(r.Scenario); m != nil && r.Metric == "latency p99" && len(r.Values) > 0 {
			rate, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return err
			}
			name := r.Server + ", " + m[1]
			lines[name] = append(lines[name], plotter.XY{X: max(rate, 1), Y: max(r.Median, 1) / 1e3})
		}
	}
	p := plot.New()
	p.Title.Text = "latency p99 by rate: " + c.CPU
	p.X.Label.Text = "events a second"
	p.Y.Label.Text = "ms"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	drawn := 0
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		line := lines[name]
		if len(line) < 2 {
			continue
		}
		slices.SortFunc(line, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		if err := addLine(p, drawn, name, line); err != nil {
			return err
		}
		points, err := plotter.NewScatter(line)
		if err != nil {
			return err
		}
		points.Color, points.Shape, points.Radius = plotutil.Color(drawn), draw.CircleGlyph{}, vg.Points(3)
		p.Add(points)
		drawn++
	}
	if drawn == 0 {
		return errors.New("no scenario was measured at two rates")
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(plotWidth/2, plotHeight))
	p.Draw(draw.New(canvas))
	_, err := canvas.WriteTo(w)
	return err
}
