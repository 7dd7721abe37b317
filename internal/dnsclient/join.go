package dnsclient

import "fmt"

// Join returns the errors of two servers as one. Its text is one line, unlike
// that of errors.Join. Nil errors are left out.
func Join(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return fmt.Errorf("%w; %w", a, b)
}
