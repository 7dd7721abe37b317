//go:build !unix

package tsigfiles

func signalReload() error { return errDue }
