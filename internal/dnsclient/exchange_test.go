package dnsclient

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const testKey = "par1.key."

func TestCheckSigned(t *testing.T) {
	key := Key{Name: testKey}
	signed := func(rcode int, tsigError uint16, other string) *dns.Msg {
		m := new(dns.Msg)
		m.Rcode = rcode
		m.SetTsig(testKey, dns.HmacSHA256, Fudge, 1000)
		m.IsTsig().Error = tsigError
		m.IsTsig().OtherData = other
		return m
	}
	late := hex.EncodeToString([]byte{0, 0, 0, 0, 4, 0xe8}) // 1256
	ede := signed(dns.RcodeRefused, 0, "")
	ede.SetEdns0(1232, false)
	ede.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{ExtraText: "198.51.100.0/24 is not accepted"}}
	ede.Extra[0], ede.Extra[1] = ede.Extra[1], ede.Extra[0]
	escapes, many, unnamed := ede.Copy(), ede.Copy(), signed(13, 0, "")
	escapes.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{ExtraText: "no\n\x1b[2J" + strings.Repeat("x", 1000)}}
	for range 100 {
		many.IsEdns0().Option = append(many.IsEdns0().Option, ede.IsEdns0().Option...)
	}
	tests := []struct {
		m    *dns.Msg
		want string
	}{
		{signed(dns.RcodeSuccess, 0, ""), ""},
		{new(dns.Msg), "not signed: compare both"},
		{signed(dns.RcodeNotAuth, dns.RcodeBadKey, ""), `does not know key 'par1.key.' (BADKEY): compare both`},
		{signed(dns.RcodeNotAuth, dns.RcodeBadSig, ""), `different secret for key 'par1.key.' (BADSIG): compare both`},
		{signed(dns.RcodeNotAuth, dns.RcodeBadTime, late), "clocks differ by 4m16s"},
		{signed(dns.RcodeServerFailure, 0, ""), "SERVFAIL"},
		{ede, "REFUSED: 198.51.100.0/24 is not accepted"},
		{escapes, `REFUSED: no\x0a\x1b[2Jxxx`},
		{many, "REFUSED: 198.51.100.0/24 is not accepted: 198.51.100.0/24 is not accepted"},
		{unnamed, "the server answered 13"},
		{signed(dns.RcodeNotAuth, dns.RcodeBadTime, "ffffffffffff"), "clocks differ by 2562047h47m16s"},
	}
	for _, tc := range tests {
		err := CheckSigned(tc.m, key, "compare both")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("Expected %q, got %v", tc.want, err)
		}
		if err != nil {
			expectLoggable(t, err)
		}
	}
}
