package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// minToken is the least length of the control API's token, in characters.
const minToken = 16

// readToken reads the token of a TCP control listener.
func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minToken {
		return "", errShortToken
	}
	return token, nil
}

var errShortToken = errors.New("admin.token_file holds less than 16 characters; put a token there that nobody guesses, such as the output of: openssl rand -hex 32")

// checkTokenFile looks at the token of the control API, where it is wanted. A
// file that is not here, or not for us to read, may be there for the daemon.
func checkTokenFile(file *allowlists.File, report *diag.Report) {
	path, control := file.Settings.Admin.TokenFile, file.Settings.Listen.Control
	if path == "" || strings.HasPrefix(control, "unix:") || control == "" {
		return
	}
	switch _, err := readToken(path); {
	case err == nil:
	case errors.Is(err, errShortToken):
		report.Errorf(file.Place("admin.token_file"), "%s", err)
	default:
		report.Warnf(file.Place("admin.token_file"), "admin.token_file cannot be read here (%s); the daemon does not start without it", withoutPath(err))
	}
}

// checkLogPath looks whether the event log could be opened, without making it.
// It is for check only: a daemon opens the file.
func checkLogPath(file *allowlists.File, report *diag.Report) {
	path := file.Settings.Log.Events
	if path == "stdout" {
		return
	}
	if err := canWrite(path); err != nil {
		report.Warnf(file.Place("log.events"), "log.events cannot be written here by this user (%s); the daemon does not start where it cannot write its log", err)
	}
}

// canWrite tells why a file could not be opened for writing, or made.
func canWrite(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(path)
		if info, err = os.Stat(dir); err == nil && !info.IsDir() {
			err = errors.New("its directory is a file")
		}
		if err == nil {
			err = writable(dir)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("its directory does not exist")
		}
	case err == nil && info.IsDir():
		err = errors.New("it is a directory")
	case err == nil:
		err = writable(path)
	}
	return withoutPath(err)
}

// writable asks the kernel whether we may write to a path, as the user that we
// are in effect.
func writable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS)
}

// withoutPath is the error of the system alone, for a message that names the key.
func withoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
