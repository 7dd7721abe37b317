// Package latencyfile reads recorded latencies: CSV files, plain or compressed by
// gzip. Latencies are in milliseconds.
package latencyfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxRTT is ten minutes: a longer latency is in the wrong unit.
	maxRTT = 600000

	// MaxEpoch is the year 5138: later times do not fit into a time.Duration.
	MaxEpoch = 1e11
)

// Lost is the latency of a lost or missing sample.
var Lost = math.NaN()

// Read calls read with the decompressed contents of a file. Errors begin
// with the name of the file.
func Read[T any](file string, read func(io.Reader) (T, error)) (T, error) {
	var zero T
	f, err := os.Open(file)
	if err != nil {
		return zero, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if magic, _ := r.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return zero, fmt.Errorf("%s: %w", file, err)
		}
		defer z.Close()
		r = bufio.NewReader(z)
	}
	t, err := read(r)
	if err != nil {
		return zero, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// Rows calls row for each row after a header that begins with the given
// names. Errors begin with the line number. Further headers, as in files that
// were joined, are skipped.
func Rows(r io.Reader, header []string, row func(fields []string) error) error {
	c := csv.NewReader(r)
	c.FieldsPerRecord = -1
	c.ReuseRecord = true
	isHeader := func(fields []string) bool {
		return len(fields) >= len(header) && slices.EqualFunc(fields[:len(header)], header, strings.HasPrefix)
	}
	for first := true; ; first = false {
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			if first {
				return errors.New("empty file")
			}
			return nil
		}
		if err != nil {
			return err // has the line number
		}
		line, _ := c.FieldPos(0)
		switch {
		case isHeader(fields):
		case first:
			return fmt.Errorf("line %d: expected the header '%s'", line, strings.Join(header, ","))
		case len(fields) < len(header):
			return fmt.Errorf("line %d: expected %d fields, got %d", line, len(header), len(fields))
		default:
			if err := row(fields); err != nil {
				return fmt.Errorf("line %d: %w", line, err)
			}
		}
	}
}

// ParseRTT returns a latency in milliseconds, or Lost for an empty field.
func ParseRTT(s string) (float64, error) {
	if s == "" {
		return Lost, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= maxRTT) {
		return 0, fmt.Errorf("invalid latency '%s': expected 0 to %d milliseconds", s, maxRTT)
	}
	return v, nil
}
