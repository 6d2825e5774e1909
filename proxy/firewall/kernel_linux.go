package firewall

import "errors"

// Apply puts the plan into the kernel in one transaction, in place of what is there.
func Apply(*Plan) error { return errors.New("not built yet") }

// Remove takes our tables out of the kernel; it is no error if there are none.
func Remove() error { return errors.New("not built yet") }

// Compare says how the kernel's tables differ from the plan, one sentence for
// each difference; nil if they are the same. It needs CAP_NET_ADMIN; without it
// the error wraps fs.ErrPermission.
func Compare(*Plan) ([]string, error) { return nil, errors.New("not built yet") }
