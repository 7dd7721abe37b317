package dnslb

import (
	"bytes"
	"compress/flate"
	"io"
)

// compressed is a text that may be long and is seldom read.
type compressed []byte

func compress(text []byte) (compressed, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return bytes.Clone(b.Bytes()), err // a buffer may have twice the space
}

func (c compressed) text() ([]byte, error) { return io.ReadAll(flate.NewReader(bytes.NewReader(c))) }
