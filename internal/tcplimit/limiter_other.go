//go:build !linux

package tcplimit

// limiter does nothing.
type limiter struct{}

func startLimiter() *limiter { return new(limiter) }

func (*limiter) setPorts(ports) {}

func (*limiter) stop() {}
