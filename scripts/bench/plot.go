//go:build linux

package main

import (
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// ratioBars are the medians of ratios with their spreads, for the plotter.
type ratioBars struct {
	plotter.Values
	spreads []spread
}

func (r ratioBars) XY(i int) (x, y float64) { return r.spreads[i].median, float64(i) }

func (r ratioBars) XError(i int) (low, high float64) {
	s := r.spreads[i]
	return s.median - s.min, s.max - s.median
}

// plot draws the ratios of metric i to an SVG file, each with its spread. It draws
// nothing where nothing could be measured.
func (t *table) plot(i int, file string) (drawn bool, err error) {
	var names []string
	var bars ratioBars
	for _, r := range slices.Backward(t.rows) { // the first is to be at the top
		if r.why == "" {
			s := spreadOf(r.ratios, i)
			if math.IsNaN(s.median) || math.IsInf(s.median, 0) {
				continue
			}
			names, bars.Values, bars.spreads = append(names, r.name), append(bars.Values, s.median), append(bars.spreads, s)
		}
	}
	if len(names) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text = t.title
	p.X.Label.Text = t.metrics[i].name + ", ratio to " + t.rows[0].name
	p.X.Min = 0
	height := vg.Points(14)
	chart, err := plotter.NewBarChart(bars.Values, height)
	if err != nil {
		return false, err
	}
	chart.Horizontal = true
	chart.Color = color.RGBA{R: 0x8c, G: 0xb4, B: 0xd2, A: 0xff}
	chart.LineStyle.Width = 0
	errors, err := plotter.NewXErrorBars(bars)
	if err != nil {
		return false, err
	}
	p.Add(plotter.NewGrid(), chart, errors)
	p.NominalY(names...)
	return true, p.Save(vg.Points(640), vg.Points(90)+vg.Length(len(names))*vg.Points(22), file)
}
