package prober

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const methods = "icmp, tcp PORT, tls PORT [SNI] [insecure], dns PORT NAME [TYPE] [recursive], " +
	"http(s)://HOST[:PORT]/PATH [ttfb|total] [insecure] [expect CODE] [match TEXT]"

// Parse reads a method and its arguments, as they stand in a Corefile.
func Parse(args []string) (Prober, error) {
	if len(args) == 0 {
		return nil, errors.New("expected a method, one of: " + methods)
	}
	method, rest := args[0], args[1:]
	switch {
	case method == "icmp":
		return parseICMP(rest)
	case method == "tcp":
		return parseTCP(rest)
	case method == "tls":
		return parseTLS(rest)
	case method == "dns":
		return parseDNS(rest)
	case strings.HasPrefix(method, "http://"), strings.HasPrefix(method, "https://"):
		return parseHTTP(method, rest)
	}
	return nil, fmt.Errorf("unknown method '%s', expected one of: %s", method, methods)
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("invalid port '%s': expected a number from 1 to 65535", s)
	}
	return uint16(port), nil
}
