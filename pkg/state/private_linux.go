// SPDX-License-Identifier: Apache-2.0

package state

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keyferry/pkg/control"
)

// checkPrivate looks at owners and modes, as ssh does at those of keys. All is of the
// user who runs the command: what root wrote into somebody's directory, they could not
// read any more. Others may enter no directory, read no identity and change no file.
func checkPrivate(dir string) error {
	root := dir + "/" // it may be a link
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, unread error) error {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		us, stat := os.Geteuid(), info.Sys().(*syscall.Stat_t)
		if them := int(stat.Uid); them != us {
			refusal := control.StateOwner.Refuse("%s belongs to user %d, and user %d runs this command", path, them, us)
			switch {
			case path != root: // this user's directory, with something of another one in it
				return refusal.WithHint("a run by another user, such as root, left it: `sudo chown -R %d %s`", us, dir)
			case us == 0:
				return refusal.WithHint("run it without sudo, as user %d; to make the state directory root's for good: `chown -R 0 %s`", them, dir)
			}
			return refusal.WithHint("run it as user %d; if the state directory is to be yours: `sudo chown -R %d %s`", them, us, dir)
		}
		closed := fs.FileMode(0o022)
		if entry.IsDir() || filepath.Base(filepath.Dir(path)) == "identity" {
			closed = 0o077
		}
		if mode := info.Mode().Perm(); mode&closed != 0 && entry.Type() != fs.ModeSymlink {
			return control.StateMode.Refuse("%s is open to others on this machine (mode %04o)", path, mode).
				WithHint("`chmod -R go= %s`; if others may have read the keys in it, begin anew (docs/recovery.md)", dir)
		}
		return unread
	})
}
