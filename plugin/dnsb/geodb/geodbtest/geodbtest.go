// Package geodbtest makes databases in the MaxMind DB format, for tests.
package geodbtest

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// Database returns the content of a database with the records of prefixes.
func Database(t testing.TB, kind string, records map[string]mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	prefixes := slices.SortedFunc(maps.Keys(records), func(a, b string) int { // a later one replaces the earlier ones
		return netip.MustParsePrefix(a).Bits() - netip.MustParsePrefix(b).Bits()
	})
	for _, prefix := range prefixes {
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, records[prefix]); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// AS returns a record of GeoLite2-ASN.
func AS(number uint32) mmdbtype.Map {
	return mmdbtype.Map{
		"autonomous_system_number":       mmdbtype.Uint32(number),
		"autonomous_system_organization": mmdbtype.String("Example"),
	}
}

// Country returns a record of GeoLite2-Country or, with a latitude and longitude,
// of GeoLite2-City.
func Country(continent, country string, coordinates ...float64) mmdbtype.Map {
	m := mmdbtype.Map{}
	if continent != "" {
		m["continent"] = mmdbtype.Map{"code": mmdbtype.String(continent), "geoname_id": mmdbtype.Uint32(1)}
	}
	if country != "" {
		m["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(country), "names": mmdbtype.Map{"en": mmdbtype.String(country)}}
	}
	if len(coordinates) == 2 {
		m["location"] = mmdbtype.Map{"latitude": mmdbtype.Float64(coordinates[0]), "longitude": mmdbtype.Float64(coordinates[1])}
	}
	return m
}
