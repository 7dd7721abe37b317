package prefixmap

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Lines knows where map files have their prefixes: an explanation must not make
// this server read files. It takes 8 bytes a prefix, a number whose upper bits are
// of the hash of the prefix, and the lower ones its line. Of a million prefixes,
// some four have the hash of another one, and no line.
type Lines struct {
	files   []string
	before  []int    // lines of the files before each one
	numbers []uint64 // sorted
}

const (
	lineBits = 26 // later lines are not known
	lineMask = 1<<lineBits - 1
)

var lineSeed = maphash.MakeSeed()

func lineHash(prefix netip.Prefix) uint64 { return maphash.Comparable(lineSeed, prefix) &^ lineMask }

// addFile begins the next file, which has so many lines, after files with so many.
func (x *Lines) addFile(path string, lines, linesBefore int) {
	x.files, x.before = append(x.files, path), append(x.before, linesBefore)
	x.numbers = slices.Grow(x.numbers, lines)
}

// add adds a prefix of the last file.
func (x *Lines) add(prefix netip.Prefix, line int) {
	if line += x.before[len(x.before)-1]; line <= lineMask {
		x.numbers = append(x.numbers, lineHash(prefix)|uint64(line)) // #nosec G115 -- positive
	}
}

// finish makes the index ready to be read.
func (x *Lines) finish() {
	slices.Sort(x.numbers)
	x.numbers = slices.Clip(x.numbers)
}

// Position returns the position of a prefix that is in one of the files: FILE:LINE,
// or else the files.
func (x *Lines) Position(prefix netip.Prefix) string {
	hash := lineHash(prefix)
	i, _ := slices.BinarySearch(x.numbers, hash)
	if i == len(x.numbers) || x.numbers[i]&^lineMask != hash || i+1 < len(x.numbers) && x.numbers[i+1]&^lineMask == hash {
		return strings.Join(x.files, ", ")
	}
	line := int(x.numbers[i] & lineMask) // #nosec G115 -- 26 bits
	for i, before := range slices.Backward(x.before) {
		if before < line {
			return x.files[i] + ":" + strconv.Itoa(line-before)
		}
	}
	return ""
}
