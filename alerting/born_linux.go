package alerting

import (
	"os"

	"golang.org/x/sys/unix"
)

// bornAt is when a file was made, in Unix nanoseconds; 0 where the file system
// does not say, as many network ones.
func bornAt(file *os.File) (born int64) {
	conn, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	_ = conn.Control(func(fd uintptr) {
		var stat unix.Statx_t
		err := unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &stat)
		if err == nil && stat.Mask&unix.STATX_BTIME != 0 {
			born = stat.Btime.Sec*1e9 + int64(stat.Btime.Nsec)
		}
	})
	return born
}
