//go:build linux

package auth

import (
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colors are one for each algorithm (Okabe and Ito, told apart by everybody).
var colors = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff},
	color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	color.RGBA{0x00, 0x9e, 0x73, 0xff},
}

// panel is a bar chart: for each group, one bar for each algorithm.
type panel struct {
	title, unit string
	groups      []string
	values      []plotter.Values // one for each algorithm, as long as groups
}

func panels(r *report) []panel {
	connects := costPanel("Connect, token not seen before", r.Connect, func(c *cost) (string, bool) { return c.Name, c.Token == fresh })
	publishes := costPanel("Publish", r.Publish, func(c *cost) (string, bool) {
		if c.Token == remembered {
			return remembered, true
		} else if c.Name == "plain" {
			return "first sight", true
		}
		return c.Name, true
	})
	size := panel{title: "One publish on the wire", unit: "bytes", values: make([]plotter.Values, len(algorithms))}
	for i, s := range r.Bytes {
		alg := i / (len(kinds) - 1)
		if alg == 0 {
			size.groups = append(size.groups, s.Kind)
		}
		size.values[alg] = append(size.values[alg], float64(s.Frame))
	}
	ends := panel{
		title: "After exp, or after the call to revoke: median", unit: "ms",
		groups: []string{"exp, last event", "exp, told", "revoked, last event", "revoked, told"},
	}
	for i := range algorithms {
		e, v := r.Expiry[i], r.Revocation[i]
		ends.values = append(ends.values, plotter.Values{e.Last.P50, e.Told.P50, v.Last.P50, v.Told.P50})
	}
	return []panel{connects, publishes, size, ends}
}

func costPanel(title string, cases []*cost, group func(*cost) (name string, in bool)) panel {
	p := panel{title: title, unit: "µs of server CPU", values: make([]plotter.Values, len(algorithms))}
	for _, row := range rows(cases) {
		name, in := group(row[0])
		if !in {
			continue
		}
		p.groups = append(p.groups, name)
		for i, c := range row {
			p.values[i] = append(p.values[i], c.Micros.Median)
		}
	}
	return p
}

const barWidth = vg.Length(9)

func (p panel) plot() (*plot.Plot, error) {
	pl := plot.New()
	pl.Title.Text = p.title
	pl.Y.Label.Text = p.unit
	pl.Y.Min = 0
	pl.X.Tick.Label.Font.Size = 8
	pl.Legend.Top, pl.Legend.Left = true, true
	pl.Legend.ThumbnailWidth, pl.Legend.Padding = barWidth, 2
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color = color.Gray{0xdd}
	pl.Add(grid)
	for i, v := range p.values {
		bars, err := plotter.NewBarChart(v, barWidth)
		if err != nil {
			return nil, err
		}
		bars.Color, bars.LineStyle.Width = colors[i], 0
		bars.Offset = barWidth * (vg.Length(i) - vg.Length(len(p.values)-1)/2)
		pl.Add(bars)
		pl.Legend.Add(algorithms[i], bars)
		for _, y := range v {
			pl.Y.Min = min(pl.Y.Min, y)
			pl.Y.Max = max(pl.Y.Max, y*1.4) // room for the legend
		}
	}
	pl.NominalX(p.groups...)
	return pl, nil
}

// chart writes the panels to an SVG file.
func chart(r *report, file string) error {
	all := panels(r)
	grid := [][]*plot.Plot{nil, nil}
	for i, p := range all {
		pl, err := p.plot()
		if err != nil {
			return err
		}
		grid[i/2] = append(grid[i/2], pl)
	}
	canvas := vgsvg.New(12*vg.Inch, 7*vg.Inch)
	const pad = 14
	tiles := draw.Tiles{Rows: 2, Cols: 2, PadX: 2 * pad, PadY: 2 * pad, PadTop: pad, PadBottom: pad, PadLeft: pad, PadRight: 2 * pad}
	for y, row := range plot.Align(grid, tiles, draw.New(canvas)) {
		for x, c := range row {
			grid[y][x].Draw(c)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
