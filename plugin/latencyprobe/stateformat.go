package latencyprobe

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"strconv"
	"time"
)

// A state file is text: a line with the version of the format, a JSON object on
// a line for each target, and a line with the SHA-256 of all lines before it.
const (
	stateHeader   = "latencyprobe state "
	stateVersion  = 1
	stateChecksum = "sha256 "

	// maxStateFile bounds how much is read, in bytes: 100,000 targets take a
	// third.
	maxStateFile = 512 << 20
)

var errNoState = errors.New("not a state file")

// writeState writes a state file.
func writeState(w io.Writer, targets iter.Seq[*savedTarget]) error {
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	if _, err := fmt.Fprintf(both, "%s%d\n", stateHeader, stateVersion); err != nil {
		return err
	}
	encoder := json.NewEncoder(both) // ends each object with a newline
	encoder.SetEscapeHTML(false)
	for s := range targets {
		if err := encoder.Encode(s); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s%x\n", stateChecksum, sum.Sum(nil))
	return err
}

// readState reads a state file, without targets whose state is too old. An
// error means that nothing of the file can be trusted.
func readState(r io.Reader, now time.Time) (map[measurementKey]*savedTarget, error) {
	lines := bufio.NewReader(io.LimitReader(r, maxStateFile))
	sum := sha256.New()
	header, err := nextLine(lines, sum)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(header); err != nil {
		return nil, err
	}
	targets := make(map[measurementKey]*savedTarget)
	for {
		want := hex.EncodeToString(sum.Sum(nil))
		line, err := nextLine(lines, sum)
		if err != nil {
			return nil, err
		}
		if got, ok := bytes.CutPrefix(line, []byte(stateChecksum)); ok {
			if string(got) != want {
				return nil, errors.New("wrong checksum")
			}
			break
		}
		s, err := parseTarget(line)
		if err != nil {
			return nil, err
		}
		if !s.outdated(now) {
			targets[s.key()] = s
		}
	}
	if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("unexpected bytes after the checksum")
	}
	return targets, nil
}

func checkHeader(header []byte) error {
	version, ok := bytes.CutPrefix(header, []byte(stateHeader))
	if !ok {
		return errNoState
	}
	n, err := strconv.ParseUint(string(version), 10, 31)
	if err != nil {
		return errNoState
	}
	if n != stateVersion {
		return fmt.Errorf("state file has version %d, this program reads version %d", n, stateVersion)
	}
	return nil
}

// nextLine adds a line to the checksum and returns it without its end.
func nextLine(r *bufio.Reader, sum hash.Hash) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("state file is incomplete")
	case err != nil:
		return nil, err
	}
	sum.Write(line)
	return line[:len(line)-1], nil
}
