package draw

import (
	"image/color"
	"io"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/notifyd/notifyd/bench/auth"
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

func panels(r *auth.Report) []panel {
	connects := costPanel("Connect, token not seen before", r.Connect, func(c *auth.Cost) (string, bool) { return c.Name, c.Token == auth.Fresh })
	publishes := costPanel("Publish", r.Publish, func(c *auth.Cost) (string, bool) {
		if c.Token == auth.Remembered {
			return auth.Remembered, true
		} else if c.Name == "plain" {
			return "first sight", true
		}
		return c.Name, true
	})
	size := panel{title: "One publish on the wire", unit: "bytes", values: make([]plotter.Values, len(auth.Algorithms))}
	for _, b := range r.Bytes {
		if !slices.Contains(size.groups, b.Kind) {
			size.groups = append(size.groups, b.Kind)
		}
		alg := slices.Index(auth.Algorithms, b.Alg)
		size.values[alg] = append(size.values[alg], float64(b.Frame))
	}
	ends := panel{
		title: "After exp, or after the call to revoke: median", unit: "ms",
		groups: []string{"exp, last event", "exp, told", "revoked, last event", "revoked, told"},
	}
	for i := range auth.Algorithms {
		e, v := r.Expiry[i], r.Revocation[i]
		ends.values = append(ends.values, plotter.Values{e.Last.P50, e.Told.P50, v.Last.P50, v.Told.P50})
	}
	return []panel{connects, publishes, size, ends}
}

func costPanel(title string, cases []*auth.Cost, group func(*auth.Cost) (name string, in bool)) panel {
	p := panel{title: title, unit: "µs of server CPU", values: make([]plotter.Values, len(auth.Algorithms))}
	for _, row := range auth.Rows(cases) {
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
		pl.Legend.Add(auth.Algorithms[i], bars)
		for _, y := range v {
			pl.Y.Min = min(pl.Y.Min, y)
			pl.Y.Max = max(pl.Y.Max, y*1.4) // room for the legend
		}
	}
	pl.NominalX(p.groups...)
	return pl, nil
}

// Auth draws what "go run ./bench auth" measured: four bar charts as SVG.
func Auth(w io.Writer, r *auth.Report) error {
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
	_, err := canvas.WriteTo(w)
	return err
}
