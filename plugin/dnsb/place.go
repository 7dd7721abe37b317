package dnsb

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"

	"github.com/gaissmai/bart"
	"github.com/miekg/dns"
	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// place is what the databases say of a prefix, as far as a line names somebody
// for it. Equal places are one place.
type place struct {
	asn, country, continent *region // nil: there is no line
	at                      *point  // nil: not known
}

// regions returns them in the order of their layers, from layerASN on.
func (p *place) regions() [3]*region { return [...]*region{p.asn, p.country, p.continent} }

// region is an AS, a country or a continent, and whom the operator named for it.
type region struct {
	name  string // AS64500, FR, EU
	nodes []nodeID
	entry *entry // for prefixes of the AS in map files
}

// regions are those of 'asn', 'country' and 'continent' lines.
type regions struct {
	asns, countries, continents map[string]*region
}

func newRegions() *regions {
	return &regions{make(map[string]*region), make(map[string]*region), make(map[string]*region)}
}

// isRegion reports whether lines that begin with word name nodes for a region.
func isRegion(word string) bool { return word == "asn" || word == "country" || word == "continent" }

// regionForm is how a line for a region is written.
func regionForm(word string) string {
	return word + " " + map[string]string{"asn": "AS64500", "country": "FR", "continent": "EU"}[word] + " NODE..."
}

// parseRegion checks the fields of a line for a region.
func parseRegion(fields []string) error {
	ok := len(fields) > 2
	if ok && fields[0] == "asn" {
		ok = isASN(fields[1])
	} else if ok {
		ok = isCode(fields[1])
	}
	if !ok {
		return fmt.Errorf("expected '%s'", regionForm(fields[0]))
	}
	return nil
}

// lines returns the lines that begin with word.
func (r *regions) lines(word string) map[string]*region {
	switch word {
	case "asn":
		return r.asns
	case "country":
		return r.countries
	}
	return r.continents
}

// add takes the fields of a line, which parseRegion has checked.
func (r *regions) add(t *tables, fields []string) error {
	lines, name := r.lines(fields[0]), fields[1]
	if lines[name] != nil {
		return corefile.Twice(fields[0]+" "+name, "put all its nodes on one line, best first")
	}
	e := t.operator(fields[2:])
	added := &region{name: name, entry: e}
	for _, c := range e.claims {
		added.nodes = append(added.nodes, c.node)
	}
	lines[name] = added
	return nil
}

// usable returns an error if map files have lines that nothing can be looked up for.
func (r *regions) usable(conf *config) error {
	if len(conf.databases) > 0 || len(r.countries) == 0 && len(r.continents) == 0 {
		return nil
	}
	return errors.New("lines for countries and continents in a map file need a database: add 'mmdb FILE' to the Corefile")
}

func isASN(s string) bool { return asNumber(s) != 0 }

// asNumber returns the number in AS64500; 0, which is reserved (RFC 7607), if it
// is not of this form.
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

// isCode reports whether s is like a country of ISO 3166-1 alpha-2, or a continent.
func isCode(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// places is the table of places in the making. It holds no more prefixes than it
// takes: neighbours that are alike are one, and what no line names is left out.
type places struct {
	*regions

	table    *bart.Table[*place]
	unique   map[place]*place
	points   map[[2]int16]*point
	networks int // in all databases
}

// readPlaces reads databases in the MaxMind DB format. Where two of them say
// something of an address, the first one counts.
func readPlaces(files []string, r *regions) (*places, error) {
	l := &places{regions: r, table: new(bart.Table[*place]), unique: make(map[place]*place), points: make(map[[2]int16]*point)}
	for i, path := range files {
		if err := l.read(path, i > 0); err != nil {
			return nil, fmt.Errorf("mmdb: %s: %w", path, err)
		}
	}
	return l, nil
}

// fields are those of GeoLite2 and GeoIP2, and of the databases of others that
// are made to be read like them.
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

func (l *places) read(path string, more bool) error {
	// Not mapped into memory: who writes over a file that is, kills the process.
	content, err := os.ReadFile(path) // #nosec G304 -- the operator names it
	if err != nil {
		return err
	}
	db, err := maxminddb.OpenBytes(content)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()

	records := make(map[uintptr]*place) // a record serves many networks
	useful, networks := false, uint(0)
	add := l.insert
	if more {
		add = l.merge
	}
	run := joiner{add: add}
	for result := range db.Networks() {
		if err := result.Err(); err != nil {
			return err
		}
		if networks++; networks > db.Metadata.NodeCount+1 {
			return errors.New("the search tree is damaged: it is none")
		}
		p, ok := records[result.Offset()]
		if !ok {
			var f fields
			if err := result.Decode(&f); err != nil {
				return err
			}
			useful = useful || f != (fields{})
			p = l.place(f)
			records[result.Offset()] = p
		}
		if p != nil {
			run.push(result.Prefix(), p)
		}
	}
	run.flush()
	l.networks += int(networks) // #nosec G115 -- as many as the file has nodes
	if !useful {
		return fmt.Errorf("a %s has neither AS numbers nor countries nor coordinates", db.Metadata.DatabaseType)
	}
	return nil
}

// place returns the place of a record, nil if there is nothing to say of it.
func (l *places) place(f fields) *place {
	p := place{country: l.countries[f.Country.Code], continent: l.continents[f.Continent.Code]}
	if f.ASN != 0 {
		p.asn = l.asns["AS"+strconv.FormatUint(f.ASN, 10)]
	}
	if lat, lon := f.Location.Latitude, f.Location.Longitude; lat != nil && lon != nil && math.Abs(*lat) <= 90 && math.Abs(*lon) <= 180 {
		p.at = l.point(*lat, *lon)
	}
	if p == (place{}) {
		return nil
	}
	return l.one(p)
}

// point returns the point of coordinates in whole degrees, which are some 100 km:
// databases are not more exact, and nodes are farther apart.
func (l *places) point(lat, lon float64) *point {
	key := [2]int16{int16(math.Round(lat)), int16(math.Round(lon))}
	p, ok := l.points[key]
	if !ok {
		at := pointAt(float64(key[0]), float64(key[1]))
		p = &at
		l.points[key] = p
	}
	return p
}

func (l *places) one(p place) *place {
	one, ok := l.unique[p]
	if !ok {
		one = &p
		l.unique[p] = one
	}
	return one
}

func (l *places) insert(prefix netip.Prefix, p *place) { l.table.Insert(prefix, p) }

// merge adds what a further database says of a prefix. Networks of one database
// do not overlap, but the two may cut the addresses up differently.
func (l *places) merge(prefix netip.Prefix, p *place) {
	type known struct {
		prefix netip.Prefix
		place  *place
	}
	var inside []known
	for sub, was := range l.table.Subnets(prefix) {
		inside = append(inside, known{sub, was})
	}
	around, _ := l.table.LookupPrefix(prefix)
	l.table.Insert(prefix, l.both(around, p))
	for _, k := range inside {
		l.table.Insert(k.prefix, l.both(k.place, p))
	}
}

// both returns what was known, completed by what a later database says.
func (l *places) both(was, p *place) *place {
	if was == nil {
		return p
	}
	sum := *was
	if sum.asn == nil {
		sum.asn = p.asn
	}
	if sum.country == nil {
		sum.country = p.country
	}
	if sum.continent == nil {
		sum.continent = p.continent
	}
	if sum.at == nil {
		sum.at = p.at
	}
	return l.one(sum)
}

// joiner joins neighbouring prefixes with the same value to their common prefix.
// They must come in order and not overlap.
type joiner struct {
	add   func(netip.Prefix, *place)
	value *place
	run   []netip.Prefix // of value; each waits for its right neighbour
}

func (j *joiner) push(prefix netip.Prefix, value *place) {
	if value != j.value {
		j.flush()
		j.value = value
	}
	for len(j.run) > 0 {
		last := j.run[len(j.run)-1]
		around := parent(last)
		if last.Bits() == prefix.Bits() && around == parent(prefix) {
			prefix = around
			j.run = j.run[:len(j.run)-1]
			continue
		}
		if !around.Contains(prefix.Addr()) || around.Bits() >= prefix.Bits() {
			j.flush()
		}
		break
	}
	j.run = append(j.run, prefix)
}

func (j *joiner) flush() {
	for _, prefix := range j.run {
		j.add(prefix, j.value)
	}
	j.run = j.run[:0]
}

// parent returns the prefix that is one bit shorter; the whole of a family is its
// own.
func parent(prefix netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(prefix.Addr(), max(prefix.Bits()-1, 0)).Masked()
}

// point is a point on the unit sphere. Of two points, the nearer one to a third
// has the larger product with it.
type point struct{ x, y, z float64 }

// pointAt returns the point at a latitude and longitude in degrees.
func pointAt(lat, lon float64) point {
	sinLat, cosLat := math.Sincos(lat * math.Pi / 180)
	sinLon, cosLon := math.Sincos(lon * math.Pi / 180)
	return point{cosLat * cosLon, cosLat * sinLon, sinLat}
}

func (p point) dot(q point) float64 { return p.x*q.x + p.y*q.y + p.z*q.z }

// pointOf returns the point of a location in the presentation form of LOC (RFC
// 1876), nil if there is none.
func pointOf(location string) *point {
	if location == "" {
		return nil
	}
	rr, err := dns.NewRR(". 0 IN LOC " + location)
	if err != nil {
		return nil
	}
	loc, ok := rr.(*dns.LOC)
	if !ok {
		return nil
	}
	degrees := func(v uint32) float64 { return float64(int64(v)-dns.LOC_EQUATOR) / (3600 * 1000) }
	p := pointAt(degrees(loc.Latitude), degrees(loc.Longitude))
	return &p
}
