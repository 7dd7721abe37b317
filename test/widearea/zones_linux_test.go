package widearea

// Zone files as templates, for the root server and DNS-A.

const rootZone = `$ORIGIN .
$TTL 86400
@                   SOA a.root-servers.net. hostmaster.example.org. 1 1800 900 604800 86400
                    NS  a.root-servers.net.
{{range .Addrs}}
a.root-servers.net. {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
a0.org.             {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}
org.                NS  a0.org.
`

const orgZone = `$ORIGIN org.
$TTL 86400
@           SOA a0 hostmaster.example.org. 1 1800 900 604800 3600
            NS  a0
example     NS  ns1.example
{{range .Org.Addrs}}
a0          {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}{{range .DNSA.Addrs}}
ns1.example {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}`

const exampleZone = `$ORIGIN example.org.
$TTL 3600
@       SOA   ns1 hostmaster 1 1800 900 604800 300
        NS    ns1
first   A     203.0.113.98
second  A     203.0.113.99
lame    NS    ns1
{{range .Names}}{{.}} CNAME {{.}}.svc.gslb
{{end}}
{{range .DNSA.Addrs}}
ns1     {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}
{{range $i, $host := .DNSBs}}
gslb    NS    b{{$i}}.gslb
{{range .Addrs}}
b{{$i}}.gslb {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}{{end}}`
