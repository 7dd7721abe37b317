//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"

	"github.com/miekg/dns"
)

// server is a process.
type server struct {
	cmd  *exec.Cmd
	port int
}

const zone = "gslb.example.org"

// start starts all servers, on core 0.
func start(dir, program, only string, clients []uint32) (subjects []*subject, stop func()) {
	mapFile, nets := writeMaps(dir, clients)
	next := port
	run := func(name, qname string, right func(int) []byte, command func(port int) []string) {
		if !strings.HasPrefix(name, only) {
			return
		}
		next++
		cmd := exec.Command("taskset", append([]string{"-c", "0"}, command(next)...)...)
		cmd.Stdout, cmd.Stderr = nil, os.Stderr
		if os.Getenv("VERBOSE") == "" {
			cmd.Stderr = nil
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // of the main thread, see main
		if err := cmd.Start(); err != nil {
			log.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion(qname, dns.TypeA)
		m.RecursionDesired = false
		m.SetEdns0(1232, false)
		query, err := m.Pack()
		if err != nil {
			log.Fatal(err)
		}
		subjects = append(subjects, &subject{name: name, server: &server{cmd, next}, query: query, right: right})
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			log.Fatal(err)
		}
		return path
	}
	dnsb := func(name, extra string) func(int) []string {
		return func(port int) []string {
			var b strings.Builder
			fmt.Fprintf(&b, "%s:%d {\nbind 127.0.0.1\n%s dnsb {\nns b1 127.0.0.1\nmap %s\n", zone, port, prometheus(port, extra), mapFile)
			for i := range nodes {
				fmt.Fprintf(&b, "node n%d 192.0.2.%d\n", i, i+1)
			}
			b.WriteString("cut svc")
			for i := range nodes {
				fmt.Fprintf(&b, " n%d", i)
			}
			fmt.Fprintf(&b, "\n%s\n}\n}\n", strings.TrimPrefix(extra, "prometheus"))
			return []string{program, "-conf", write(name, b.String())}
		}
	}
	dnslb := func(name, extra string) func(int) []string {
		return func(port int) []string {
			return []string{program, "-conf", write(name, fmt.Sprintf("svc.%s:%d {\nbind 127.0.0.1\n%s latencyprobe {\nrtt tcp %d\n}\ndnslb {\nserver a 127.0.0.1\nserver b 127.0.0.2\nservice www.svc.gslb.example.org a b\n%s\n}\n}\n",
				zone, port, prometheus(port, extra), probed, strings.TrimPrefix(extra, "prometheus")))}
		}
	}
	constant := func(kind string) func(int) []string {
		return func(port int) []string {
			return []string{os.Args[0], "-constant", write("constant-"+kind, fmt.Sprintf("%s:%d {\nbind 127.0.0.1\nconstant %s\n}\n", zone, port, kind))}
		}
	}
	gdnsd := func(name, plugins, record string) func(int) []string {
		return func(port int) []string {
			dir := filepath.Dir(write(name+"/config", fmt.Sprintf("options => { listen => 127.0.0.1:%d, udp_threads => 1, tcp_threads => 1, run_dir => %s/%s/run, state_dir => %[2]s/%[3]s/state }\n%[4]s\n", port, dir, name, plugins)))
			write(name+"/zones/"+zone, "@ SOA ns1 hostmaster 1 7200 1800 86400 120\n@ NS ns1\nns1 A 127.0.0.1\nwww "+record+"\n")
			return []string{"gdnsd", "-c", dir, "start"}
		}
	}
	geoip := fmt.Sprintf("plugins => { geoip => { maps => { m => { datacenters => [%s], nets => %s } }, resources => { r => { map => m, dcmap => { %s } } } } }", names(", ", "n%d"), nets, names(", ", "n%d => 192.0.2.%[2]d"))
	metafo := fmt.Sprintf("service_types => { t => { plugin => tcp_connect, port => %d, interval => 10 } }\nplugins => { multifo => { m => { service_types => t, a => 127.0.0.1, b => 127.0.0.2 } } }", probed)

	listener, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", probed))
	if err != nil {
		log.Fatal(err)
	}
	go accept(listener)
	loopback := func(int) []byte { return []byte{127, 0, 0} }
	www := "www.svc." + zone + "."
	run("dnsb fast path", www, nodeAddress, dnsb("dnsb-fast", ""))
	run("dnsb fast path, prometheus", www, nodeAddress, dnsb("dnsb-fast-prometheus", "prometheus"))
	run("dnsb chain, prometheus", www, nodeAddress, dnsb("dnsb-chain", "prometheusfast-path off"))
	run("dnsb gdnsd geoip", "www."+zone+".", nodeAddress, gdnsd("geoip", geoip, "DYNA geoip!r"))
	run("dnsb constant referral", www, loopback, constant("referral"))
	run("dnslb fast path", www, loopback, dnslb("dnslb-fast", ""))
	run("dnslb fast path, prometheus", www, loopback, dnslb("dnslb-fast-prometheus", "prometheus"))
	run("dnslb chain, prometheus", www, loopback, dnslb("dnslb-chain", "prometheusfast-path off"))
	run("dnslb gdnsd multifo", "www."+zone+".", loopback, gdnsd("multifo", metafo, "DYNA multifo!m"))
	run("dnslb constant", www, loopback, constant("answer"))
	stop = func() {
		for _, s := range subjects {
			_ = s.server.cmd.Process.Signal(syscall.SIGTERM)
			_ = s.server.cmd.Wait()
		}
		_ = listener.Close()
	}
	for _, s := range subjects {
		s.await()
	}
	return subjects, stop
}

// probed is the TCP port that health checks connect to.
const probed = 5299

func accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

func prometheus(port int, extra string) string {
	if !strings.HasPrefix(extra, "prometheus") {
		return ""
	}
	return fmt.Sprintf("prometheus 127.0.0.1:%d\n", port+1000)
}

func names(separator, format string) string {
	all := make([]string, nodes)
	for i := range all {
		if strings.Contains(format, "[2]") {
			all[i] = fmt.Sprintf(format, i, i+1)
		} else {
			all[i] = fmt.Sprintf(format, i)
		}
	}
	return strings.Join(all, separator)
}

// writeMaps writes the same map for dnsb and for gdnsd.
func writeMaps(dir string, clients []uint32) (dnsb, gdnsd string) {
	dnsb, gdnsd = filepath.Join(dir, "map"), filepath.Join(dir, "nets")
	var files [2]*bufio.Writer
	for i, path := range []string{dnsb, gdnsd} {
		f, err := os.Create(path)
		if err != nil {
			log.Fatal(err)
		}
		defer f.Close()
		files[i] = bufio.NewWriter(f)
		defer files[i].Flush()
	}
	for i, site := range clients {
		fmt.Fprintf(files[0], "%s/24 n%d\n", address(site), i%nodes)
		fmt.Fprintf(files[1], "%s/24 => [n%d]\n", address(site), i%nodes)
	}
	return dnsb, gdnsd
}

// await waits until a server answers.
func (s *subject) await() {
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: serverAddr, Port: s.server.port})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 2048)
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(100 * time.Millisecond) {
		_, _ = conn.Write(s.query)
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := conn.Read(b); err == nil && n > 12 {
			return
		}
	}
	log.Fatalf("%s does not answer", s.name)
}

// serveConstant runs a server with a plugin that answers a constant.
func serveConstant(corefile string) {
	plugin.Register("constant", func(c *caddy.Controller) error {
		c.NextArg()
		c.NextArg()
		h := constant(c.Val() == "referral")
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return h })
		return nil
	})
	dnsserver.Directives = append([]string{"constant"}, dnsserver.Directives...)
	dnsserver.Quiet, caddy.Quiet = true, true
	text, err := os.ReadFile(corefile)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := caddy.Start(caddy.CaddyfileInput{Contents: text, Filepath: corefile, ServerTypeName: "dns"}); err != nil {
		log.Fatal(err)
	}
	select {}
}

// constant answers with one address, or refers to a name with one.
type constant bool

func (constant) Name() string { return "constant" }

func (referral constant) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	name := r.Question[0].Name
	a := dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
	if !referral {
		m.Authoritative = true
		m.Answer = []dns.RR{&dns.A{Hdr: a, A: net.IPv4(127, 0, 0, 1)}}
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	a.Name = "n1.lb." + zone + "."
	ns := dns.RR_Header{Name: name[len("www."):], Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}
	m.Ns = []dns.RR{&dns.NS{Hdr: ns, Ns: a.Name}}
	m.Extra = []dns.RR{&dns.A{Hdr: a, A: net.IPv4(127, 0, 0, 1)}}
	return dns.RcodeSuccess, w.WriteMsg(m)
}
