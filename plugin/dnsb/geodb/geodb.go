// Package geodb reads databases in the MaxMind DB format into a table of prefixes.
//
// Nothing reads a database at query time. The table has only what a rule of the
// caller is for, neighboring prefixes with the same record are one, and so are
// equal records: it is small. point.go has the points of coordinates, join.go
// joins prefixes.
package geodb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"strconv"

	"github.com/gaissmai/bart"
	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

// Record is what databases say of a prefix, as far as a rule is for it. It is
// comparable.
type Record[R any] struct {
	ASN, Country, Continent *R     // nil: no rule is for it
	At                      *Point // nil: not known
}

// Rules are rules of the caller: by AS number such as AS64500, by country of ISO
// 3166-1 alpha-2, and by continent (AF, AN, AS, EU, NA, OC, SA).
type Rules[R any] struct {
	ASNs, Countries, Continents map[string]*R
}

// Table has the records of all databases.
type Table[R any] struct {
	Prefixes *bart.Table[*Record[R]]
	Networks int // in all databases
}

// WithRules returns the table with these rules in the place of those with the same
// code. There are no records for other rules.
func (t Table[R]) WithRules(rules Rules[R], code func(*R) string) Table[R] {
	out := Table[R]{Prefixes: new(bart.Table[*Record[R]]), Networks: t.Networks}
	if t.Prefixes == nil {
		return out
	}
	replaced := make(map[*Record[R]]*Record[R])
	of := func(rules map[string]*R, r *R) *R {
		if r == nil {
			return nil
		}
		return rules[code(r)]
	}
	for prefix, old := range t.Prefixes.All() {
		r, ok := replaced[old]
		if !ok {
			r = &Record[R]{of(rules.ASNs, old.ASN), of(rules.Countries, old.Country), of(rules.Continents, old.Continent), old.At}
			replaced[old] = r
		}
		out.Prefixes.Insert(prefix, r)
	}
	return out
}

// IsASN reports whether s is an AS number such as AS64500. AS0 is reserved (RFC
// 7607).
func IsASN(s string) bool { return asNumber(s) != 0 }

// asNumber returns the number in AS64500, 0 if s does not have this form.
func asNumber(s string) uint64 {
	if len(s) < 3 || s[:2] != "AS" || s[2] < '1' || s[2] > '9' {
		return 0
	}
	n, err := strconv.ParseUint(s[2:], 10, 32)
	if err != nil {
		return 0
	}
	return n
}

// IsCode reports whether s has the form of a country code (ISO 3166-1 alpha-2) or
// of the code of a continent.
func IsCode(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// loader makes a Table.
type loader[R any] struct {
	rules  Rules[R]
	pacer  *pacing.Pacer
	table  Table[R]
	unique map[Record[R]]*Record[R]
	points map[[2]int16]*Point
}

// Load reads databases. Where two of them say the same kind of thing about an
// address, the first one counts. An error names the file.
func Load[R any](files []string, rules Rules[R], pacer *pacing.Pacer) (Table[R], error) {
	l := loader[R]{
		rules: rules, pacer: pacer, table: Table[R]{Prefixes: new(bart.Table[*Record[R]])},
		unique: make(map[Record[R]]*Record[R]), points: make(map[[2]int16]*Point),
	}
	for i, path := range files {
		if err := l.read(path, i == 0); err != nil {
			return Table[R]{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	return l.table, nil
}

// fields are those of GeoLite2 and GeoIP2, and of databases that imitate them.
type fields struct {
	ASN       uint64 `maxminddb:"autonomous_system_number"`
	Continent struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"continent"`
	Country struct {
		Code string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Location struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
	} `maxminddb:"location"`
}

// read reads one database. What earlier ones say counts more.
func (l *loader[R]) read(path string, first bool) error {
	// It is not mapped into memory: a process that writes over a mapped file would
	// kill this one.
	content, err := inputfile.Read(path)
	if err != nil {
		return err
	}
	db, err := maxminddb.OpenBytes(content)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()

	records := make(map[uintptr]*Record[R]) // one record serves many networks
	useful, networks := false, uint(0)
	add := l.merge
	if first {
		add = l.insert
	}
	run := joiner[Record[R]]{add: add}
	for result := range db.Networks() {
		l.pacer.Step()
		if err := result.Err(); err != nil {
			return err
		}
		if networks++; networks > db.Metadata.NodeCount+1 {
			return errors.New("corrupt MaxMind database: search tree too large")
		}
		p, ok := records[result.Offset()]
		if !ok {
			var f fields
			if err := result.Decode(&f); err != nil {
				return err
			}
			useful = useful || f != (fields{})
			p = l.record(f)
			records[result.Offset()] = p
		}
		if p != nil {
			run.push(result.Prefix(), p)
		}
	}
	run.flush()
	l.table.Networks += int(networks) // #nosec G115 -- as many as the file has nodes
	if !useful {
		return fmt.Errorf("a %s has neither AS numbers nor countries nor coordinates", db.Metadata.DatabaseType)
	}
	return nil
}

// record returns the geo record of fields, nil if no rule is for it.
func (l *loader[R]) record(f fields) *Record[R] {
	p := Record[R]{Country: l.rules.Countries[f.Country.Code], Continent: l.rules.Continents[f.Continent.Code]}
	if f.ASN != 0 {
		p.ASN = l.rules.ASNs["AS"+strconv.FormatUint(f.ASN, 10)]
	}
	if lat, lon := f.Location.Latitude, f.Location.Longitude; lat != nil && lon != nil && math.Abs(*lat) <= 90 && math.Abs(*lon) <= 180 {
		p.At = l.point(*lat, *lon)
	}
	if p == (Record[R]{}) {
		return nil
	}
	return l.shared(p)
}

// point returns the point of coordinates in whole degrees, some 100 km: databases
// are not more exact, and nodes are farther apart.
func (l *loader[R]) point(lat, lon float64) *Point {
	key := [2]int16{int16(math.Round(lat)), int16(math.Round(lon))}
	p, ok := l.points[key]
	if !ok {
		at := PointAt(float64(key[0]), float64(key[1]))
		p = &at
		l.points[key] = p
	}
	return p
}

// shared returns the one copy of equal records.
func (l *loader[R]) shared(p Record[R]) *Record[R] {
	shared, ok := l.unique[p]
	if !ok {
		shared = &p
		l.unique[p] = shared
	}
	return shared
}

func (l *loader[R]) insert(prefix netip.Prefix, p *Record[R]) { l.table.Prefixes.Insert(prefix, p) }

// merge adds what a further database says of a prefix. Networks of one database do
// not overlap, but two databases may divide the addresses differently.
func (l *loader[R]) merge(prefix netip.Prefix, p *Record[R]) {
	prefixes := l.table.Prefixes
	longer := maps.Collect(prefixes.Subnets(prefix))
	covering, _ := prefixes.LookupPrefix(prefix)
	prefixes.Insert(prefix, l.complete(covering, p))
	for sub, known := range longer {
		prefixes.Insert(sub, l.complete(known, p))
	}
}

// complete returns the record known with the fields it lacks taken from p, the
// record of a later database.
func (l *loader[R]) complete(known, p *Record[R]) *Record[R] {
	if known == nil {
		return p
	}
	return l.shared(Record[R]{
		ASN: cmp.Or(known.ASN, p.ASN), Country: cmp.Or(known.Country, p.Country),
		Continent: cmp.Or(known.Continent, p.Continent), At: cmp.Or(known.At, p.At),
	})
}
