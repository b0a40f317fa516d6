package draw

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/notifyd/notifyd/bench/load"
)

const (
	plotWidth  = 12 * vg.Inch
	plotHeight = 5 * vg.Inch
	// headroom above the highest point of the costs is where the legend stands.
	headroom = 1.4
)

// Load draws two pictures side by side as SVG: how late events were, by percentile, and how much processor time the
// server took for how many deliveries. A line joins the loads of one server, scenario and kind.
func Load(w io.Writer, title string, results []load.Result) error {
	latency, err := latencyPlot(title, results)
	if err != nil {
		return err
	}
	cost, err := costPlot(results)
	if err != nil {
		return err
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(plotWidth, plotHeight))
	plots := [][]*plot.Plot{{latency, cost}}
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: vg.Inch / 2, PadTop: vg.Inch / 8, PadBottom: vg.Inch / 8, PadLeft: vg.Inch / 8, PadRight: vg.Inch / 4}
	for i, c := range plot.Align(plots, tiles, draw.New(canvas))[0] {
		plots[0][i].Draw(c)
	}
	_, err = canvas.WriteTo(w)
	return err
}

// nines maps a percentile to the distance that an extra nine adds: 90 is 1,
// 99 is 2.
func nines(percent float64) float64 { return -math.Log10(1 - percent/100) }

func latencyPlot(title string, results []load.Result) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "percentile"
	p.Y.Label.Text = "latency, ms"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	// A distribution climbs from the lower left; the legend stands at the lower right.
	p.Legend.Left, p.Legend.XOffs = true, plotWidth/14
	p.Add(plotter.NewGrid())
	top, drawn := 1.0, 0
	for _, r := range results {
		if r.Latency.Count == 0 {
			continue
		}
		// The last points say nothing: there are no more events than that.
		most := nines(100 * (1 - 1/float64(r.Latency.Count+1)))
		top = max(top, most)
		var line plotter.XYs
		for _, point := range r.Latency.Percentiles {
			line = append(line, plotter.XY{X: min(nines(point.Percent), most), Y: max(point.Micros, 1) / 1e3})
		}
		if err := addLine(p, drawn, name(r)+", "+r.Label(), line); err != nil {
			return nil, err
		}
		drawn++
	}
	p.X.Tick.Marker = percentTicks(top)
	return p, nil
}

func percentTicks(top float64) plot.ConstantTicks {
	ticks := plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: nines(50), Label: "50"}}
	for _, percent := range []float64{90, 99, 99.9, 99.99, 99.999, 99.9999} {
		if nines(percent) <= top {
			ticks = append(ticks, plot.Tick{Value: nines(percent), Label: strconv.FormatFloat(percent, 'f', -1, 64)})
		}
	}
	return ticks
}

// costPlot has one line for each server, scenario and kind of load.
func costPlot(results []load.Result) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "throughput and what it costs"
	p.X.Label.Text = "thousand deliveries a second"
	p.Y.Label.Text = "server CPU, cores"
	p.X.Min, p.Y.Min = 0, 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	lines := map[string]plotter.XYs{}
	var names []string
	for _, r := range results {
		if r.ServerCores == nil || r.Delivered == 0 {
			continue
		}
		kind, _, _ := strings.Cut(r.Load, " ") // window or rate
		name := name(r) + ", by " + kind
		if lines[name] == nil {
			names = append(names, name)
		}
		lines[name] = append(lines[name], plotter.XY{X: r.DeliveriesPerSecond / 1e3, Y: *r.ServerCores})
		p.Y.Max = max(p.Y.Max, *r.ServerCores*headroom)
	}
	for i, name := range names {
		slices.SortFunc(lines[name], func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		if err := addLine(p, i, name, lines[name]); err != nil {
			return nil, err
		}
		points, err := plotter.NewScatter(lines[name])
		if err != nil {
			return nil, err
		}
		points.Color, points.Shape, points.Radius = plotutil.Color(i), draw.CircleGlyph{}, vg.Points(3)
		p.Add(points)
	}
	return p, nil
}

func addLine(p *plot.Plot, i int, name string, points plotter.XYs) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
	p.Add(line)
	p.Legend.Add(name, line)
	return nil
}

func name(r load.Result) string { return fmt.Sprintf("%s %s, %d B", r.Server, r.Scenario, r.Size) }
