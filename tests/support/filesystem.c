/* A file system that fails, for tests: the calls of a process are changed between it and the C library.
 *
 * FS_RULES   "call:errno:part;..."   the call fails on any path that ends in part (at the end, or at "*")
 * FS_NUMBERS "kind:part"             what a stat of such a path says: see numbers()
 * FS_TYPES   "unknown"               a directory does not tell what kind its entries are
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void of_fd(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
}

static void of_name(int dir, const char *name, char *path) {
    path[0] = 0;
    if (name[0] != '/' && dir != AT_FDCWD) {
        of_fd(dir, path);
        strncat(path, "/", PATH_MAX - strlen(path) - 1);
    }
    strncat(path, name, PATH_MAX - strlen(path) - 1);
    size_t size = strlen(path);
    if (size > 2 && !strcmp(path + size - 2, "/.")) path[size - 2] = 0;
}

static int matches(const char *path, const char *part, size_t size) {
    if (size && part[size - 1] == '*') return memmem(path, strlen(path), part, size - 1) != NULL;
    size_t length = strlen(path);
    return length >= size && !memcmp(path + length - size, part, size);
}

/* The error that a rule has for this call on this path, or 0. */
static int error(const char *call, const char *path) {
    const char *rule = getenv("FS_RULES");
    while (rule && *rule) {
        const char *number = strchr(rule, ':'), *part = number ? strchr(number + 1, ':') : NULL;
        if (!part) break;
        size_t size = strcspn(++part, ";");
        if ((size_t)(number - rule) == strlen(call) && !memcmp(rule, call, strlen(call)) && matches(path, part, size))
            return atoi(number + 1);
        rule = part + size + (part[size] == ';');
    }
    return 0;
}

#define FAIL_BY_NAME(call, dir, name) \
    char path[PATH_MAX]; of_name(dir, name, path); \
    int code = error(call, path); if (code) { errno = code; return -1; }
#define FAIL_BY_FD(call, fd) \
    char path[PATH_MAX]; of_fd(fd, path); \
    int code = error(call, path); if (code) { errno = code; return -1; }

static unsigned long looked_up;
static unsigned long number_of[65536];

/* each: another inode number at each call. look-up: at each look-up by name, and a descriptor keeps that of its open.
 * device: by name another device. mounts: another device at each call. round: by name the mtime in whole two seconds. */
static void numbers(const char *path, int fd, struct stat *status) {
    const char *rule = getenv("FS_NUMBERS"), *part = rule ? strchr(rule, ':') : NULL;
    if (!part || !S_ISREG(status->st_mode) || !matches(path, part + 1, strlen(part + 1))) return;
    size_t size = part - rule;
    if (!strncmp(rule, "each", size)) status->st_ino = 1000000 + ++looked_up;
    if (!strncmp(rule, "look-up", size))
        status->st_ino = fd >= 0 && fd < 65536 ? number_of[fd] : 1000000 + ++looked_up;
    if (!strncmp(rule, "device", size) && fd < 0) status->st_dev += 1;
    if (!strncmp(rule, "mounts", size)) status->st_dev += ++looked_up;
    if (!strncmp(rule, "round", size) && fd < 0) {
        status->st_mtim.tv_sec &= ~1L;
        status->st_mtim.tv_nsec = 0;
    }
}

static int opened(int fd) {
    if (fd >= 0 && fd < 65536) number_of[fd] = 1000000 + ++looked_up;
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { \
    va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open64(const char *name, int flags, ...) {
    REAL(int, "open64", const char *, int, mode_t); MODE
    FAIL_BY_NAME("open", AT_FDCWD, name)
    return opened(real(name, flags, mode));
}
int open(const char *name, int flags, ...) {
    REAL(int, "open", const char *, int, mode_t); MODE
    FAIL_BY_NAME("open", AT_FDCWD, name)
    return opened(real(name, flags, mode));
}
int openat64(int dir, const char *name, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, mode_t); MODE
    FAIL_BY_NAME("open", dir, name)
    return opened(real(dir, name, flags, mode));
}
int openat(int dir, const char *name, int flags, ...) {
    REAL(int, "openat", int, const char *, int, mode_t); MODE
    FAIL_BY_NAME("open", dir, name)
    return opened(real(dir, name, flags, mode));
}

/* Where long has 64 bits, struct stat and struct stat64 are laid out alike. */
#define STATS(suffix, kind) \
    int fstat##suffix(int fd, struct kind *status) { \
        REAL(int, "fstat" #suffix, int, struct kind *); FAIL_BY_FD("fstat", fd) \
        int done = real(fd, status); if (!done) numbers(path, fd, (struct stat *)status); return done; } \
    int stat##suffix(const char *name, struct kind *status) { \
        REAL(int, "stat" #suffix, const char *, struct kind *); FAIL_BY_NAME("stat", AT_FDCWD, name) \
        int done = real(name, status); if (!done) numbers(path, -1, (struct stat *)status); return done; } \
    int lstat##suffix(const char *name, struct kind *status) { \
        REAL(int, "lstat" #suffix, const char *, struct kind *); FAIL_BY_NAME("stat", AT_FDCWD, name) \
        int done = real(name, status); if (!done) numbers(path, -1, (struct stat *)status); return done; } \
    int fstatat##suffix(int dir, const char *name, struct kind *status, int flags) { \
        REAL(int, "fstatat" #suffix, int, const char *, struct kind *, int); FAIL_BY_NAME("stat", dir, name) \
        int done = real(dir, name, status, flags); if (!done) numbers(path, -1, (struct stat *)status); return done; }
STATS(64, stat64)
STATS(, stat)

int unlink(const char *name) { REAL(int, "unlink", const char *); FAIL_BY_NAME("unlink", AT_FDCWD, name) return real(name); }
int unlinkat(int dir, const char *name, int flags) {
    REAL(int, "unlinkat", int, const char *, int); FAIL_BY_NAME("unlink", dir, name)
    return real(dir, name, flags);
}
int rename(const char *old, const char *new) {
    REAL(int, "rename", const char *, const char *); FAIL_BY_NAME("rename", AT_FDCWD, old)
    return real(old, new);
}
int mkdir(const char *name, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t); FAIL_BY_NAME("mkdir", AT_FDCWD, name)
    return real(name, mode);
}
int rmdir(const char *name) { REAL(int, "rmdir", const char *); FAIL_BY_NAME("rmdir", AT_FDCWD, name) return real(name); }
int access(const char *name, int how) {
    REAL(int, "access", const char *, int); FAIL_BY_NAME("access", AT_FDCWD, name)
    return real(name, how);
}
int faccessat(int dir, const char *name, int how, int flags) {
    REAL(int, "faccessat", int, const char *, int, int); FAIL_BY_NAME("access", dir, name)
    return real(dir, name, how, flags);
}
int flock(int fd, int how) { REAL(int, "flock", int, int); FAIL_BY_FD("flock", fd) return real(fd, how); }
ssize_t read(int fd, void *data, size_t size) {
    REAL(ssize_t, "read", int, void *, size_t);
    if (getenv("FS_RULES")) { FAIL_BY_FD("read", fd) }
    return real(fd, data, size);
}
int close(int fd) {
    REAL(int, "close", int);
    if (getenv("FS_RULES")) { char path[PATH_MAX]; of_fd(fd, path); int code = error("close", path);
        if (code) { real(fd); errno = code; return -1; } }
    return real(fd);
}

static int no_dir(const char *path) { int code = error("scandir", path); if (code) errno = code; return code; }
DIR *opendir(const char *name) {
    REAL(DIR *, "opendir", const char *); char path[PATH_MAX]; of_name(AT_FDCWD, name, path);
    return no_dir(path) ? NULL : real(name);
}
DIR *fdopendir(int fd) {
    REAL(DIR *, "fdopendir", int); char path[PATH_MAX]; of_fd(fd, path);
    return no_dir(path) ? NULL : real(fd);
}
struct dirent64 *readdir64(DIR *dir) {
    REAL(struct dirent64 *, "readdir64", DIR *); char path[PATH_MAX]; of_fd(dirfd(dir), path);
    int code = error("readdir", path); if (code) { errno = code; return NULL; }
    struct dirent64 *entry = real(dir);
    if (entry && getenv("FS_TYPES")) entry->d_type = DT_UNKNOWN;
    return entry;
}
struct dirent *readdir(DIR *dir) {
    REAL(struct dirent *, "readdir", DIR *); char path[PATH_MAX]; of_fd(dirfd(dir), path);
    int code = error("readdir", path); if (code) { errno = code; return NULL; }
    struct dirent *entry = real(dir);
    if (entry && getenv("FS_TYPES")) entry->d_type = DT_UNKNOWN;
    return entry;
}
