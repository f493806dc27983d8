/*
 * kvs: an embeddable key-value store. Example:
 *
 *     kvs_store *store = NULL;
 *     if (kvs_open("cities", NULL, &store) < 0 ||
 *         kvs_set(store, "no", 2, "Oslo", 4) < 0)
 *         fprintf(stderr, "%s\n", kvs_last_error());
 *     kvs_close(store);
 *     kvs_store_free(store);
 *
 * Printed from the Rust sources by cbindgen: change those and run `make header`.
 *
 * Conventions, true of every function unless it says otherwise
 *
 *   Status    0 is done, above 0 is an answer that is not a failure (KVS_NOT_FOUND), below 0 is a
 *             failure: test (status < 0). Numbers never change meaning. kvs_last_error has the
 *             details of the last failure on the calling thread. Beside the statuses it names, a
 *             function may return KVS_ERR_PANIC, KVS_ERR_PERMISSION instead of KVS_ERR_IO, and
 *             on the engine sled KVS_ERR_ENGINE.
 *   Order     The handle comes first, then inputs, then outputs. Outputs are set to NULL or 0 at
 *             once and to a result only on success.
 *   Bytes     Keys and values are bytes with a length. They may be empty, may hold zero bytes, and
 *             need no terminator. With length 0 the pointer may be anything, NULL included; only
 *             where a value or a bound may be absent, NULL with length 0 says that it is. Keys
 *             have at most KVS_KEY_LEN_MAX bytes, values KVS_VALUE_LEN_MAX; a longer key is never
 *             found. A length that no object can have, such as -1, is KVS_ERR_INVALID.
 *   Ownership Inputs are borrowed for the call and copied. What a function makes is freed by the
 *             function its comment names, never by free(). Every _free function accepts NULL.
 *   NULL      where an object is needed gives KVS_ERR_NULL, and kvs_last_error names the argument.
 *   Threads   "any" means: from any thread, beside any other call. No call calls back into your
 *             program, and none unwinds through it; only the thread kvs-log does, if you ask for
 *             that by kvs_set_logger.
 *   Fork      In the child every call on a handle of the parent says KVS_ERR_FORKED; the _free
 *             functions release memory and touch neither files nor threads nor locks. The parent
 *             goes on unharmed. Opening a store in the child of a program with several threads is
 *             only sound after exec.
 *   Manners   The library prints nothing, installs no signal handler, never exits, and reads no
 *             environment variable. Its threads are called kvs-* and take no signals; its files
 *             are closed by exec. What errno is after a call says nothing: kvs_last_os_error does.
 *   Limits    No function may be called by a signal handler, and no thread may be cancelled within
 *             one (pthread_cancel). The library is not made to be unloaded (dlclose). A process
 *             that ends without kvs_close loses no more than one that is killed: see
 *             KVS_OPT_DURABILITY.
 *   Since     Functions are there since 0.1.0 unless they say so.
 *
 * What you promise; a function's "Safety" names those it relies on
 *
 *   1. A handle came from the function that makes it and has not been given to its _free function.
 *   2. A pointer to an input points at as many readable bytes as its length says, or at a string
 *      that ends in a zero byte; they do not change during the call.
 *   3. A pointer to an output is aligned, writable, and used by nothing else during the call.
 *   4. The call that frees a handle is the last one to use it, on any thread.
 *   5. A kvs_options, kvs_batch or kvs_iter is used by one thread at a time.
 *   6. A function given to kvs_set_logger may be called from another thread, with its userdata,
 *      until kvs_set_logger has returned for the next one; it returns.
 *
 * Linking: cc app.c $(pkg-config --cflags --libs kvs), or find_package(kvs) and kvs::kvs with
 * CMake. That is the shared library; the static one is pkg-config --static, with KVS_STATIC
 * defined, or kvs::static. Two static libraries written in Rust do not go into one program.
 */
#ifndef KVS_H
#define KVS_H


#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(KVS_STATIC)
#define KVS_API __declspec(dllimport)
#else
#define KVS_API
#endif

/* On functions whose status nobody should drop. */
#if defined(__GNUC__)
#define KVS_MUST_USE __attribute__((warn_unused_result))
#else
#define KVS_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif


/**
 * The ABI that this header describes. 0 until the first release, which promises nothing yet; then
 * 1, and another number only when a program compiled with an older header would break.
 */
#define KVS_ABI_VERSION 0

/**
 * The version of this header. See kvs_version_number for the library's.
 */
#define KVS_VERSION_MAJOR 0

/**
 * See KVS_VERSION_MAJOR.
 */
#define KVS_VERSION_MINOR 1

/**
 * See KVS_VERSION_MAJOR.
 */
#define KVS_VERSION_PATCH 0

/**
 * The three parts as one number that compares like the versions do.
 */
#define KVS_VERSION_NUMBER (((KVS_VERSION_MAJOR << 24) | (KVS_VERSION_MINOR << 16)) | (KVS_VERSION_PATCH << 8))

/**
 * Nothing is logged.
 */
#define KVS_LOG_OFF 0

/**
 * Something failed, and nobody's call could say so.
 */
#define KVS_LOG_ERROR 1

/**
 * Something is not as it should be, and the library copes.
 */
#define KVS_LOG_WARN 2

/**
 * Something an operator may want to know.
 */
#define KVS_LOG_INFO 3

/**
 * Something only a developer of the library wants to know.
 */
#define KVS_LOG_DEBUG 4

/**
 * As KVS_LOG_DEBUG, and more of it.
 */
#define KVS_LOG_TRACE 5

/**
 * Longest key, in bytes.
 */
#define KVS_KEY_LEN_MAX 65535

/**
 * Longest value, in bytes (1 GiB).
 */
#define KVS_VALUE_LEN_MAX 1073741824

/**
 * Text: the engine, "kvs" or "sled". Default: what the directory holds, else "kvs".
 */
#define KVS_OPT_ENGINE 1

/**
 * Number: what a returned write survives, one of KVS_DURABILITY_*. Default:
 * KVS_DURABILITY_INTERVAL.
 */
#define KVS_OPT_DURABILITY 2

/**
 * Number: milliseconds between syncs with KVS_DURABILITY_INTERVAL: 1 to 4294967295.
 * Default: 500.
 */
#define KVS_OPT_SYNC_INTERVAL_MS 3

/**
 * Number: how records are read, one of KVS_READ_*. Default: KVS_READ_MAPPED.
 */
#define KVS_OPT_READ_MODE 4

/**
 * Switch: 1 creates a store where there is none, 0 says KVS_ERR_NO_STORE then. Default: 1.
 */
#define KVS_OPT_CREATE 5

/**
 * Switch: 1 says KVS_ERR_STORE_EXISTS where there is a store already, 0 opens it. Default: 0.
 */
#define KVS_OPT_EXCLUSIVE 6

/**
 * Number: milliseconds to wait for another opener to let go before KVS_ERR_LOCKED:
 * 0 to 4294967295. Default: 0.
 */
#define KVS_OPT_LOCK_TIMEOUT_MS 7

/**
 * Number: smallest size at which a segment file is sealed, in bytes: 0 to 134217728, and not
 * above KVS_OPT_SEGMENT_BYTES_MAX. Default: 4194304.
 */
#define KVS_OPT_SEGMENT_BYTES_MIN 8

/**
 * Number: largest size of a segment file, in bytes: 4096 to 134217728, and not below
 * KVS_OPT_SEGMENT_BYTES_MIN. A larger record has a segment of its own. Default: 134217728.
 */
#define KVS_OPT_SEGMENT_BYTES_MAX 9

/**
 * Switch: 1 gives dead space back in the background, 0 only in kvs_compact. Default: 1.
 */
#define KVS_OPT_AUTO_COMPACTION 10

/**
 * Number: most bytes that compaction copies per second, that of kvs_compact too: 0 to
 * 18446744073709551615, where 0 sets no limit. Default: 0.
 */
#define KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX 11

/**
 * Switch: 1 puts the keys in order when the store is opened, 0 when the first scan in order asks
 * for it. Default: 0.
 */
#define KVS_OPT_ORDERED 12

/**
 * Switch: 1 opens for reading only, a view of the moment of the open, beside a process that may
 * have the store open for writing: nothing is locked or written, writes say KVS_ERR_READ_ONLY, and
 * kvs_refresh shows what has been written since. 0 opens for reading and writing. Default: 0.
 */
#define KVS_OPT_READ_ONLY 13

/**
 * Number: from how much of it being dead on a segment file is compacted in the background, in
 * percent: 10 to 90. Less saves space and copies more: files take up to 100 / (100 - this) times
 * the live bytes. Default: 50.
 */
#define KVS_OPT_COMPACTION_DEAD_PERCENT_MIN 14

/**
 * Number: what stands between a write and its file, one of KVS_WRITE_MODE_*. Default:
 * KVS_WRITE_MODE_TAIL.
 */
#define KVS_OPT_WRITE_MODE 15

/**
 * Text: the server's thread pool, "shared-queue", "rayon" or "naive" (a thread per job).
 * Default: "shared-queue".
 */
#define KVS_OPT_SERVER_POOL 1000

/**
 * Number: threads of the server's pool: 0 to 1024, where 0 takes one per processor. Default: 0.
 */
#define KVS_OPT_SERVER_THREADS 1001

/**
 * Number: most connections at a time: 1 to 4294967295; further clients get an error and are cut
 * off. Default: 1024.
 */
#define KVS_OPT_SERVER_CONNECTIONS_MAX 1002

/**
 * Number: a descriptor that listens already, such as one from a service manager, to be used
 * instead of the address. It must be open when kvs_server_start is called, which duplicates it
 * and makes it non-blocking; yours stays yours. Default: KVS_NO_FD, which uses the address.
 */
#define KVS_OPT_SERVER_LISTEN_FD 1003

/**
 * Number: longest request of a client, in bytes: 1 to 1073741824. Default: 67108864.
 */
#define KVS_OPT_SERVER_REQUEST_BYTES_MAX 1004

/**
 * Number: bytes of replies that wait for a client before its requests do: 1 to 4294967295.
 * Default: 1048576.
 */
#define KVS_OPT_SERVER_OUTPUT_BYTES_MAX 1005

/**
 * Number: milliseconds that a new client has to say something: 1 to 4294967295. Default: 30000.
 */
#define KVS_OPT_SERVER_FIRST_BYTE_TIMEOUT_MS 1006

/**
 * Number: milliseconds that a request may take from its first byte to its last:
 * 1 to 4294967295. Default: 30000.
 */
#define KVS_OPT_SERVER_REQUEST_TIMEOUT_MS 1007

/**
 * Number: milliseconds that a client may leave its replies unread: 1 to 4294967295.
 * Default: 60000.
 */
#define KVS_OPT_SERVER_STALL_TIMEOUT_MS 1008

/**
 * Number: milliseconds that a client has to take its last replies when it is cut off:
 * 1 to 4294967295. Default: 5000.
 */
#define KVS_OPT_SERVER_LINGER_TIMEOUT_MS 1009

/**
 * Number: milliseconds of silence after which the system asks whether a client is still there:
 * 1000 to 4294967295. Default: 30000.
 */
#define KVS_OPT_SERVER_KEEPALIVE_TIME_MS 1010

/**
 * Number: bytes of requests that have arrived in part, of all clients together, without the
 * first 65536 of each, which are taken in any case. Above it, whoever adds to them gets an error
 * and is cut off: 0 to 4294967295. It counts as KVS_OPT_SERVER_REQUEST_BYTES_MAX at least.
 * Default: 268435456.
 */
#define KVS_OPT_SERVER_UNFINISHED_BYTES_MAX 1011

/**
 * A returned write survives the death of the process (kill -9). When power fails, what the
 * operating system had not written yet is lost.
 */
#define KVS_DURABILITY_OS 0

/**
 * As KVS_DURABILITY_OS, and power loss costs at most the last KVS_OPT_SYNC_INTERVAL_MS. The
 * default.
 */
#define KVS_DURABILITY_INTERVAL 1

/**
 * A returned write survives power loss. Writers that wait at the same time share one sync.
 */
#define KVS_DURABILITY_SYNC 2

/**
 * Read through a mapping of the files: fastest. A disk that fails under a mapped page kills the
 * process with SIGBUS. The default.
 */
#define KVS_READ_MAPPED 0

/**
 * Read by system calls: a failing disk is a KVS_ERR_IO. Several times slower.
 */
#define KVS_READ_POSITIONED 1

/**
 * Write through a small mapped file: fastest, and as safe from the death of the process. Where
 * the file system does not allow it, and with KVS_DURABILITY_SYNC, this is KVS_WRITE_MODE_DIRECT;
 * has_tail of kvs_stats says which it is. A disk that fails under the mapped file kills the
 * process with SIGBUS. The default.
 */
#define KVS_WRITE_MODE_TAIL 0

/**
 * Write by system calls: a failing disk is a KVS_ERR_IO. Slower.
 */
#define KVS_WRITE_MODE_DIRECT 1

/**
 * In KVS_OPT_SERVER_LISTEN_FD: none.
 */
#define KVS_NO_FD 4294967295

/**
 * In place of a time: the key does not expire.
 */
#define KVS_EXPIRY_NEVER UINT64_MAX

/**
 * For kvs_write: return only when the batch survives power loss, whatever KVS_OPT_DURABILITY says.
 */
#define KVS_WRITE_SYNC 1

/**
 * For scans: from the last key to the first.
 */
#define KVS_SCAN_REVERSE 1

/**
 * For scans: leave the values out. Every value is empty then.
 */
#define KVS_SCAN_KEYS_ONLY 2

/**
 * As a time to wait: without end.
 */
#define KVS_WAIT_FOREVER 4294967295

/**
 * Writes that belong together. Only memory: it knows no store, and kvs_write applies it to one.
 * Used by one thread at a time.
 */
typedef struct kvs_batch kvs_batch;

/**
 * The bytes of one value. Read-only, so it may be shared between threads.
 */
typedef struct kvs_buf kvs_buf;

/**
 * A scan under way. Used by one thread at a time.
 *
 * A scan sees each key that is there for the whole of the scan exactly once. Keys that are set or
 * removed meanwhile may be seen or not. A value is one that the key had at a moment during the
 * scan, whole. A scan is no snapshot: two of its values can belong to different moments.
 */
typedef struct kvs_iter kvs_iter;

/**
 * Choices for kvs_open and kvs_server_start, by number. Used by one thread at a time; neither
 * function keeps or changes it, so one may serve many calls.
 */
typedef struct kvs_options kvs_options;

/**
 * A server that was started. All calls on it may be made from any thread at once, kvs_server_free
 * excepted.
 */
typedef struct kvs_server kvs_server;

/**
 * An open store. All calls on it may be made from any thread at once, kvs_store_free excepted.
 */
typedef struct kvs_store kvs_store;

/**
 * The result of nearly every function: KVS_OK, a positive KVS_* that is an answer and not a
 * failure, or a negative KVS_ERR_*. So failures are found by (status < 0).
 */
typedef int32_t kvs_status;

/**
 * What kvs_set_logger takes: a function that is called with the userdata that was given there, the
 * level of a line (KVS_LOG_ERROR to KVS_LOG_TRACE), and the line: UTF-8 without a line break, with
 * paths, lengths and offsets, never the bytes of a key or a value. The text is the library's and
 * valid during the call. The function must return: no longjmp, no exception.
 */
typedef void (*kvs_log_fn)(void *userdata, int32_t level, const char *text);

/**
 * Figures of a store, of about one moment. Later versions add members at the end and change none.
 */
typedef struct {
    /**
     * Number of keys.
     */
    uint64_t key_count;
    /**
     * Bytes of the newest records of all keys, with what stands around them.
     */
    uint64_t live_bytes;
    /**
     * Bytes of all segment files.
     */
    uint64_t total_bytes;
    /**
     * Bytes of the records that say that a key was removed.
     */
    uint64_t tombstone_bytes;
    /**
     * Number of segment files.
     */
    uint64_t segment_count;
    /**
     * Memory of the index, in bytes.
     */
    uint64_t index_bytes;
    /**
     * Compactions since the store was opened.
     */
    uint64_t compaction_count;
    /**
     * Groups of writes since the store was opened: what was written at once, for all who wrote
     * at the same time.
     */
    uint64_t group_count;
    /**
     * Records written since the store was opened.
     */
    uint64_t record_count;
    /**
     * Syncs of the disk since the store was opened.
     */
    uint64_t sync_count;
    /**
     * Unfinished writes that the last open cut off and kept in "lost+found".
     */
    uint64_t crash_tails_cut;
    /**
     * Bytes of everything that is not live: total_bytes without live_bytes.
     */
    uint64_t dead_bytes;
    /**
     * Of the live bytes, those of keys that have expired; at least so many.
     */
    uint64_t expired_bytes;
    /**
     * Number of records that say that a key was removed.
     */
    uint64_t tombstone_count;
    /**
     * Number of files that compaction has replaced and that a reader, a buffer, an iterator or a
     * checkpoint still holds. They are not part of total_bytes.
     */
    uint64_t retired_file_count;
    /**
     * Bytes of those files.
     */
    uint64_t retired_bytes;
    /**
     * Bytes of records that a loss of power would take at this moment.
     */
    uint64_t unsynced_bytes;
    /**
     * Age of the oldest of them, in microseconds; 0 if there are none.
     */
    uint64_t unsynced_us;
    /**
     * 1 if the store takes no more writes (KVS_ERR_POISONED), else 0.
     */
    uint64_t is_poisoned;
    /**
     * 1 if the disk was found full, so that only removes and compaction work, else 0.
     */
    uint64_t is_reserve_lent;
    /**
     * How long opening the store took, in microseconds.
     */
    uint64_t open_us;
    /**
     * Bytes of the records written since the store was opened; what compaction writes comes on
     * top.
     */
    uint64_t written_bytes;
    /**
     * New log files begun since the store was opened.
     */
    uint64_t rotation_count;
    /**
     * How long the syncs took together, in microseconds.
     */
    uint64_t sync_us;
    /**
     * How long the longest of them took, in microseconds.
     */
    uint64_t sync_us_max;
    /**
     * How often a write was held back because compaction was behind.
     */
    uint64_t throttle_count;
    /**
     * How long writes were held back together, in microseconds.
     */
    uint64_t throttle_us;
    /**
     * How long a write was held back at most, in microseconds.
     */
    uint64_t throttle_us_max;
    /**
     * Bytes of files that compactions read since the store was opened.
     */
    uint64_t compaction_read_bytes;
    /**
     * Bytes of files that they wrote.
     */
    uint64_t compaction_written_bytes;
    /**
     * How long they took together, in microseconds.
     */
    uint64_t compaction_us;
    /**
     * 1 if writes pass through a mapped tail, which may not be possible on the file system, else
     * 0.
     */
    uint64_t has_tail;
} kvs_stats;

/**
 * Done.
 */
#define KVS_OK 0

/**
 * The key is not there.
 */
#define KVS_NOT_FOUND 1

/**
 * There are no more records.
 */
#define KVS_END 2

/**
 * The key is not what it was expected to be, and was left as it is.
 */
#define KVS_MISMATCH 3

/**
 * The buffer is too small. Nothing was copied; the length to make room for was stored.
 */
#define KVS_TOO_SMALL 4

/**
 * The time is over and what was waited for has not happened.
 */
#define KVS_TIMEOUT 5

/**
 * An argument is NULL that must not be.
 */
#define KVS_ERR_NULL -1

/**
 * An argument or an option has a value that cannot work.
 */
#define KVS_ERR_INVALID -2

/**
 * This build of the library does not know the option, the engine, the operation or the ABI.
 */
#define KVS_ERR_UNSUPPORTED -3

/**
 * The store has been closed.
 */
#define KVS_ERR_CLOSED -4

/**
 * An earlier failure left unknown which writes are on disk, or a bug was caught on this handle, so
 * it takes no more writes. Reads go on. Reopen the store.
 */
#define KVS_ERR_POISONED -5

/**
 * A bug in the library was caught before it could harm the program. The handle takes no more
 * writes.
 */
#define KVS_ERR_PANIC -6

/**
 * The handle was made in the process that this one was forked from, and cannot be used here.
 */
#define KVS_ERR_FORKED -7

/**
 * The operating system refused to read or write a file.
 */
#define KVS_ERR_IO -8

/**
 * The disk or a quota is full. Nothing acknowledged is lost; reads go on, and writes work again
 * once there is room.
 */
#define KVS_ERR_NO_SPACE -9

/**
 * Bytes on disk contradict themselves; the text says which.
 */
#define KVS_ERR_CORRUPT -10

/**
 * The key is longer than KVS_KEY_LEN_MAX.
 */
#define KVS_ERR_KEY_TOO_LONG -11

/**
 * The value is longer than KVS_VALUE_LEN_MAX.
 */
#define KVS_ERR_VALUE_TOO_LONG -12

/**
 * The batch takes more room than a batch may.
 */
#define KVS_ERR_BATCH_TOO_LONG -13

/**
 * The store is open already, here or in the process that the text names.
 */
#define KVS_ERR_LOCKED -14

/**
 * The path of a store exists and is not a directory.
 */
#define KVS_ERR_NOT_A_DIRECTORY -15

/**
 * There is no store there, and the options say not to create one.
 */
#define KVS_ERR_NO_STORE -16

/**
 * There is a store there already, and the options ask for a new one.
 */
#define KVS_ERR_STORE_EXISTS -17

/**
 * The store has a format that this version does not read.
 */
#define KVS_ERR_FORMAT -18

/**
 * The store was written by another engine than the one asked for.
 */
#define KVS_ERR_WRONG_ENGINE -19

/**
 * The store is open for reading only.
 */
#define KVS_ERR_READ_ONLY -20

/**
 * A text argument is not UTF-8.
 */
#define KVS_ERR_NOT_UTF8 -21

/**
 * The operating system refused a network operation.
 */
#define KVS_ERR_NET -22

/**
 * The operating system refused a thread.
 */
#define KVS_ERR_THREAD -23

/**
 * The other side of a connection broke the protocol.
 */
#define KVS_ERR_PROTOCOL -24

/**
 * An engine that is not ours failed; the text is its own.
 */
#define KVS_ERR_ENGINE -25

/**
 * The operating system denies access to a file or directory.
 */
#define KVS_ERR_PERMISSION -26

/**
 * The version of the library, such as "0.1.0".
 *
 * Ownership: static text; do not free it.
 * Threads:   any.
 */
KVS_API const char *kvs_version(void);

/**
 * The version of the library as a number: major << 24 | minor << 16 | patch << 8. Equal to
 * KVS_VERSION_NUMBER if header and library are of one version.
 *
 * Threads: any.
 */
KVS_API uint32_t kvs_version_number(void);

/**
 * Tells whether the library understands programs compiled with this header. Call it once, before
 * anything else, with KVS_ABI_VERSION.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED if header and library do not fit: kvs_last_error names
 *          both numbers.
 * Threads: any.
 * Cost:    none.
 */
KVS_API KVS_MUST_USE kvs_status kvs_check_abi(uint32_t abi_version);

/**
 * The name of a status, such as "KVS_ERR_LOCKED"; "KVS_ERR_UNKNOWN" for a number that is none.
 *
 * Ownership: static text; do not free it.
 * Threads:   any.
 */
KVS_API const char *kvs_status_name(kvs_status status);

/**
 * What a status means, as one sentence. kvs_last_error says more about a failure.
 *
 * Ownership: static text; do not free it.
 * Threads:   any.
 */
KVS_API const char *kvs_status_text(kvs_status status);

/**
 * What the last failure on the calling thread was about, with the path, the offset and the words
 * of the operating system where there are any; never the bytes of a key or a value. One line, in
 * UTF-8. "" if nothing has failed on this thread; never NULL. Calls that return KVS_OK or a
 * positive status leave it as it is.
 *
 * Ownership: the library's; valid until the next failure on the same thread. A runtime that moves
 *            its tasks between threads must not do so between the failed call and this one.
 * Threads:   any; each has its own.
 */
KVS_API const char *kvs_last_error(void);

/**
 * The error number of the operating system (errno) behind the last failure on the calling thread,
 * or 0.
 *
 * Threads: any; each has its own.
 */
KVS_API int32_t kvs_last_os_error(void);

/**
 * Sets the function that is given what the library has to say: failures in the background, tails
 * that a crash left, a disk that is full. At first there is none, and the library is silent. There
 * is one for the process; a new one takes the place of the old one.
 *
 * Lines of max_level and below are handed over, one after the other, by a thread called kvs-log
 * that does nothing else and holds no lock: the function may take its time and may call this
 * library, kvs_set_logger excepted. Nobody waits for it: when 1024 lines are waiting, further ones
 * are left out, and a line says how many. With fn NULL there is none any more, and max_level and
 * userdata are not looked at.
 *
 * When this returns, the previous function has been given every line from before this call, is not
 * being called, and never will be again; so its userdata may be freed.
 *
 * Returns: KVS_OK; KVS_ERR_INVALID: max_level is no KVS_LOG_*, or this was called by the function
 *          itself; KVS_ERR_UNSUPPORTED: the program is written in Rust and has set a logger of its
 *          own, which stays; KVS_ERR_THREAD; KVS_ERR_IO: forks cannot be watched for;
 *          KVS_ERR_FORKED: the parent process set a logger before. On failure the previous
 *          function is no longer called either, unless it is KVS_ERR_INVALID or KVS_ERR_FORKED.
 * Threads: any; promise 6.
 * Cost:    a thread while there is a function; without one, a line costs one comparison.
 *
 * # Safety
 *
 * Promise 6.
 */
KVS_API kvs_status kvs_set_logger(int32_t max_level, kvs_log_fn fn, void *userdata);

/**
 * Makes a set of options that holds the defaults.
 *
 * Example:
 *
 *   kvs_store *durable = NULL;
 *   kvs_options *options = kvs_options_new();
 *   if (kvs_options_set_u64(options, KVS_OPT_DURABILITY, KVS_DURABILITY_SYNC) < 0 ||
 *       kvs_open("accounts", options, &durable) < 0)
 *       fprintf(stderr, "%s\n", kvs_last_error());
 *   kvs_options_free(options);
 *   kvs_store_free(durable);
 *
 * Ownership: yours; give it to kvs_options_free.
 * Returns:   NULL only if a bug was caught; kvs_last_error names it.
 * Threads:   any; the result is for one thread at a time.
 */
KVS_API KVS_MUST_USE kvs_options *kvs_options_new(void);

/**
 * Frees a set of options. NULL is allowed.
 *
 * Threads: promises 4 and 5.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API void kvs_options_free(kvs_options *options);

/**
 * Sets an option that takes a number.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
 *          option takes text, or the value cannot work (what only makes sense together with other
 *          options is checked by kvs_open); KVS_ERR_NULL.
 * Threads: promise 5.
 * Cost:    none.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API kvs_status kvs_options_set_u64(kvs_options *options, int32_t id, uint64_t value);

/**
 * Sets an option that takes text: value_len bytes of UTF-8 at value, which are copied.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
 *          option takes a number (a name that nothing has is found by kvs_open or
 *          kvs_server_start); KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
 * Threads: promise 5.
 * Cost:    a copy of the text.
 *
 * # Safety
 *
 * Promises 1, 2, 4 and 5.
 */
KVS_API
kvs_status kvs_options_set_str(kvs_options *options,
                               int32_t id,
                               const char *value,
                               size_t value_len);

/**
 * Stores the value of an option that takes a number; in a fresh set, its default.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
 *          option takes text; KVS_ERR_NULL.
 * Threads: promise 5.
 * Cost:    none.
 *
 * # Safety
 *
 * Promises 1, 3, 4 and 5.
 */
KVS_API kvs_status kvs_options_get_u64(const kvs_options *options, int32_t id, uint64_t *value);

/**
 * Opens the store in a directory, and creates both if they are missing and the options do not
 * forbid it. A directory is opened once at a time, by one process; with KVS_OPT_READ_ONLY by any
 * number beside that one.
 *
 * path_utf8 is UTF-8 on every platform; if it is relative, it is so to the current directory of
 * the process at this moment. options may be NULL for the defaults.
 *
 * Ownership: *store is yours: kvs_close ends the store, kvs_store_free the pointer. NULL is stored
 *            on failure.
 * Returns:   KVS_OK; KVS_ERR_LOCKED: it is open already; KVS_ERR_NOT_A_DIRECTORY;
 *            KVS_ERR_NO_STORE and KVS_ERR_STORE_EXISTS, if the options ask for that;
 *            KVS_ERR_WRONG_ENGINE; KVS_ERR_FORMAT; KVS_ERR_CORRUPT; KVS_ERR_UNSUPPORTED: no
 *            engine has that name, or it cannot open for reading only; KVS_ERR_INVALID: an
 *            option cannot work, or the path is empty; KVS_ERR_PERMISSION; KVS_ERR_NO_SPACE;
 *            KVS_ERR_IO; KVS_ERR_THREAD; KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
 * Threads:   any.
 * Cost:      milliseconds after a clean close, however many keys there are; after a crash the
 *            newest files are read. The index, about 14 bytes for each key, comes into memory
 *            piece by piece, with the calls that need it and in the background.
 *
 * # Safety
 *
 * Promises 1 to 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_open(const char *path_utf8,
                    const kvs_options *options,
                    kvs_store **store);

/**
 * Brings a store that is open for reading only (KVS_OPT_READ_ONLY) up to what the writing process
 * has done by now: every later call on the store, from any thread, sees that or something newer.
 * On failure the store shows what it showed before. On a store that is open for writing this does
 * nothing: it always is as it is now.
 *
 * Iterators and servers that were begun before go on with what they began with, also after
 * kvs_close. Buffers stay as they are. Until the last iterator of an older view is freed, the
 * files it was made of take up space, even if the writing process has no more use for them.
 *
 * Returns: KVS_OK, also if nothing has changed; KVS_ERR_NO_STORE: it was removed; KVS_ERR_CORRUPT;
 *          KVS_ERR_IO; KVS_ERR_PERMISSION; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any; calls at the same time wait for each other.
 * Cost:    that of kvs_open; a look at the directory if nothing has changed.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_refresh(kvs_store *store);

/**
 * Closes a store: waits for calls under way, makes everything durable, and lets go of the
 * directory. Every later call on the store says KVS_ERR_CLOSED; the pointer stays valid until
 * kvs_store_free. Closing twice is no error. A server on the store answers with errors from then
 * on, so stop it first; an iterator says KVS_ERR_CLOSED.
 *
 * Returns: KVS_OK; KVS_ERR_IO or KVS_ERR_NO_SPACE: the last writes may not survive power loss; the
 *          store is closed all the same; KVS_ERR_FORKED: nothing was done; KVS_ERR_NULL.
 * Threads: any, beside any other call but kvs_store_free.
 * Cost:    a sync; waits for a compaction under way to stop.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_close(kvs_store *store);

/**
 * Frees a store, and closes it first if that has not been done; then a failure to make the last
 * writes durable goes unseen. NULL is allowed. In a child made by fork it releases memory and
 * touches nothing else. Buffers, iterators and servers of the store are freed on their own, before
 * or after.
 *
 * Threads: promise 4.
 * Cost:    that of kvs_close, if it was not called.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API void kvs_store_free(kvs_store *store);

/**
 * Looks up the value of a key.
 *
 * Example:
 *
 *   kvs_buf *value = NULL;
 *   if (kvs_get(store, "no", 2, &value) == KVS_OK)
 *       fwrite(kvs_buf_data(value), 1, kvs_buf_len(value), stdout);
 *   kvs_buf_free(value);
 *
 * Ownership: *value is yours; give it to kvs_buf_free. It stays as it is, whatever happens to the
 *            key or the store. NULL is stored unless the result is KVS_OK.
 * Returns:   KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *            KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads:   any.
 * Cost:      a lookup; the value is not copied, but verified.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_get(kvs_store *store,
                   const void *key,
                   size_t key_len,
                   kvs_buf **value);

/**
 * Copies the value of a key into memory of yours: dst has room for capacity bytes.
 *
 * *value_len is the length of the value with KVS_OK and with KVS_TOO_SMALL, else 0.
 *
 * Example:
 *
 *   char value[100];
 *   size_t len;
 *   kvs_status status = kvs_get_into(store, "no", 2, value, sizeof value, &len);
 *   if (status == KVS_OK)
 *       printf("%.*s\n", (int)len, value);
 *   else if (status == KVS_TOO_SMALL)
 *       printf("%lu bytes\n", (unsigned long)len);
 *
 * Returns: KVS_OK; KVS_NOT_FOUND; KVS_TOO_SMALL: nothing was copied, call again with *value_len
 *          bytes of room; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 * Cost:    a lookup and a copy, without an allocation: the cheapest way to read.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_get_into(kvs_store *store,
                        const void *key,
                        size_t key_len,
                        void *dst,
                        size_t capacity,
                        size_t *value_len);

/**
 * Tells whether a key is there, without its value.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 * Cost:    a lookup; does not depend on the length of the value with the engine kvs.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_contains(kvs_store *store, const void *key, size_t key_len);

/**
 * Sets a key to a value, whether or not it was there. When this returns KVS_OK every later read
 * sees the value, and it is as durable as KVS_OPT_DURABILITY says. It does not expire, whatever
 * the key did before.
 *
 * Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_READ_ONLY;
 *          KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 * Cost:    a copy, and a write to the file for many calls together; with KVS_WRITE_MODE_DIRECT a
 *          write to the file, and with KVS_DURABILITY_SYNC a sync too, both shared with those who
 *          write at the same time.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_set(kvs_store *store,
                   const void *key,
                   size_t key_len,
                   const void *value,
                   size_t value_len);

/**
 * Removes a key.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND: it was not there, and nothing was written;
 *          KVS_ERR_READ_ONLY; KVS_ERR_IO; KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: any.
 * Cost:    as kvs_set; nothing but a lookup if it is not there.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API kvs_status kvs_remove(kvs_store *store, const void *key, size_t key_len);

/**
 * Sets a key to a value and tells what it was before, in one step: nobody's write falls between.
 * With value NULL and value_len 0 the key is removed; NULL is absent, and length 0 is empty.
 *
 * Ownership: *previous is yours; give it to kvs_buf_free. NULL is stored if the key was absent,
 *            and on failure. previous may be NULL if you do not want to know.
 * Returns:   KVS_OK, whether or not the key was there; otherwise as kvs_set and kvs_get.
 * Threads:   any.
 * Cost:      kvs_get and kvs_set, and a copy of the previous value; again if another write of
 *            this key came between.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
kvs_status kvs_swap(kvs_store *store,
                    const void *key,
                    size_t key_len,
                    const void *value,
                    size_t value_len,
                    kvs_buf **previous);

/**
 * Sets a key to a desired value if it has the expected one now, in one step. NULL with length 0 is
 * absent, in both places: expect it to insert what must not be there, desire it to remove.
 * Length 0 with another pointer is the empty value.
 *
 * Example:
 *
 *   kvs_status status = kvs_compare_and_swap(store, "lock", 4, NULL, 0, "mine", 4, NULL);
 *   if (status == KVS_OK)
 *       puts("the lock was free, and is mine");
 *   else if (status == KVS_MISMATCH)
 *       puts("somebody has it");
 *
 * Ownership: *actual is yours; give it to kvs_buf_free. With KVS_MISMATCH it is what the key is,
 *            NULL if absent; otherwise NULL is stored. actual may be NULL if you do not want to
 *            know.
 * Returns:   KVS_OK: the key is what was desired; KVS_MISMATCH: it was not what was expected, and
 *            was left as it is; otherwise as kvs_set and kvs_get.
 * Threads:   any.
 * Cost:      kvs_get and kvs_set; with KVS_MISMATCH a lookup, and a copy of the value.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_compare_and_swap(kvs_store *store,
                                const void *key,
                                size_t key_len,
                                const void *expected,
                                size_t expected_len,
                                const void *desired,
                                size_t desired_len,
                                kvs_buf **actual);

/**
 * Looks up many keys in one call, each by itself: writes may fall between. For languages in which
 * a call of C is dear, and for many keys of a large store: the waits for memory are shared.
 *
 * packed_keys holds count keys, one after the other without padding: the length in 4 bytes,
 * least significant first, then the key. *packed_values holds as many values in their order: the
 * length, or 0xffffffff for a key that is absent, then the value.
 *
 *   keys    | key_len u32 | key ... | key_len u32 | key ... |
 *   values  | value_len u32 | value ... | 0xffffffff | value_len u32 | value ... |
 *
 * Ownership: *packed_values is yours; give it to kvs_buf_free. NULL is stored on failure.
 * Returns:   KVS_OK, also if keys are absent; KVS_ERR_INVALID: packed_keys is not count keys of
 *            packed_len bytes in all, or the values together are longer than KVS_VALUE_LEN_MAX
 *            bytes, so ask for fewer at a time; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED;
 *            KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads:   any.
 * Cost:      count lookups, and a copy of every value.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_get_many(kvs_store *store,
                        const void *packed_keys,
                        size_t packed_len,
                        size_t count,
                        kvs_buf **packed_values);

/**
 * Sets a key to a value until expiry_ms, in milliseconds since the Unix epoch by the system's
 * clock: from that millisecond on the key is absent, for every call, as if it had been removed. A
 * time in the past is no failure: the key is absent at once, whether or not it was there. With
 * KVS_EXPIRY_NEVER this is kvs_set. Setting the key anew takes its expiry off.
 *
 * Expired keys are counted by kvs_len, and take up space, until compaction has dropped them.
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: the engine has no expiry; otherwise as kvs_set.
 * Threads: any.
 * Cost:    as kvs_set, and 8 bytes in the file.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_set_with_expiry(kvs_store *store,
                               const void *key,
                               size_t key_len,
                               const void *value,
                               size_t value_len,
                               uint64_t expiry_ms);

/**
 * Stores when a key expires, in milliseconds since the Unix epoch, or KVS_EXPIRY_NEVER.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND: the key is absent, or has expired; KVS_ERR_CORRUPT; KVS_ERR_IO;
 *          KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL; KVS_ERR_INVALID. *expiry_ms is 0 unless
 *          KVS_OK.
 * Threads: any.
 * Cost:    a lookup; does not depend on the length of the value with the engine kvs.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_get_expiry(kvs_store *store,
                          const void *key,
                          size_t key_len,
                          uint64_t *expiry_ms);

/**
 * Lets a key expire at expiry_ms, as kvs_set_with_expiry does, or never with KVS_EXPIRY_NEVER. Its
 * value stays, and nobody's write falls between.
 *
 * *previous_ms is when the key would have expired before, or KVS_EXPIRY_NEVER; 0 unless KVS_OK.
 * previous_ms may be NULL if you do not want to know.
 *
 * Returns: KVS_OK; KVS_NOT_FOUND: the key is absent, and nothing was written; KVS_ERR_UNSUPPORTED:
 *          the engine has no expiry (KVS_EXPIRY_NEVER it takes); otherwise as kvs_set and kvs_get.
 * Threads: any.
 * Cost:    kvs_get and kvs_set: the value is written anew. A lookup if the expiry is that already.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
kvs_status kvs_set_expiry(kvs_store *store,
                          const void *key,
                          size_t key_len,
                          uint64_t expiry_ms,
                          uint64_t *previous_ms);

/**
 * The bytes of a buffer. Not NULL for a buffer, also if it has no bytes; NULL for NULL. There is
 * no zero byte after the last one, and they begin at any address, aligned to nothing.
 *
 * Ownership: the buffer's; valid until kvs_buf_free, also after the key was overwritten or the
 *            store was closed and freed.
 * Threads:   any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API const void *kvs_buf_data(const kvs_buf *buf);

/**
 * The number of bytes of a buffer; 0 for NULL.
 *
 * Threads: any.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API size_t kvs_buf_len(const kvs_buf *buf);

/**
 * Frees a buffer. NULL is allowed. A buffer may hold back the disk space that its value lies in,
 * so do not keep it for long.
 *
 * Threads: any; promise 4.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API void kvs_buf_free(kvs_buf *buf);

/**
 * Makes an empty batch.
 *
 * Ownership: yours; give it to kvs_batch_free.
 * Returns:   NULL only if a bug was caught; kvs_last_error names it.
 * Threads:   any; the result is for one thread at a time.
 * Cost:      one small allocation.
 */
KVS_API KVS_MUST_USE kvs_batch *kvs_batch_new(void);

/**
 * Frees a batch. NULL is allowed.
 *
 * Threads: promises 4 and 5.
 * Cost:    frees what was copied.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API void kvs_batch_free(kvs_batch *batch);

/**
 * Adds to a batch: set a key to a value, which does not expire. A later write of the same key wins
 * over an earlier one. On failure the batch is as it was.
 *
 * Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: promise 5.
 * Cost:    a copy of the key and the value, in memory.
 *
 * # Safety
 *
 * Promises 1, 2, 4 and 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_batch_set(kvs_batch *batch,
                         const void *key,
                         size_t key_len,
                         const void *value,
                         size_t value_len);

/**
 * Adds to a batch: set a key to a value until expiry_ms; see kvs_set_with_expiry. KVS_EXPIRY_NEVER
 * is kvs_batch_set. On failure the batch is as it was.
 *
 * Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_NULL; KVS_ERR_INVALID.
 *          Whether the engine has expiry is found by kvs_write.
 * Threads: promise 5.
 * Cost:    a copy of the key and the value, in memory.
 *
 * # Safety
 *
 * Promises 1, 2, 4 and 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_batch_set_with_expiry(kvs_batch *batch,
                                     const void *key,
                                     size_t key_len,
                                     const void *value,
                                     size_t value_len,
                                     uint64_t expiry_ms);

/**
 * Adds to a batch: remove a key. If the key is not there that has no effect, and is no failure.
 * On failure the batch is as it was.
 *
 * Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_NULL; KVS_ERR_INVALID.
 * Threads: promise 5.
 * Cost:    a copy of the key, in memory.
 *
 * # Safety
 *
 * Promises 1, 2, 4 and 5.
 */
KVS_API KVS_MUST_USE kvs_status kvs_batch_remove(kvs_batch *batch, const void *key, size_t key_len);

/**
 * The number of writes in a batch; 0 for NULL.
 *
 * Threads: promise 5.
 * Cost:    none.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API size_t kvs_batch_count(const kvs_batch *batch);

/**
 * Takes all writes out of a batch, which can then be filled anew. NULL is allowed.
 *
 * Threads: promise 5.
 * Cost:    frees what was copied.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API void kvs_batch_clear(kvs_batch *batch);

/**
 * Applies a batch to a store: all of its writes or none, for those who read at the same time, and
 * after a crash. The batch is left as it is: it may be applied again, to any store, or cleared and
 * filled anew. An empty one does nothing.
 *
 * flags is 0 or KVS_WRITE_SYNC.
 *
 * Example:
 *
 *   kvs_batch *batch = kvs_batch_new();
 *   if (kvs_batch_set(batch, "to", 2, "110", 3) < 0 ||
 *       kvs_batch_set(batch, "from", 4, "90", 2) < 0 ||
 *       kvs_batch_remove(batch, "pending", 7) < 0 ||
 *       kvs_write(store, batch, KVS_WRITE_SYNC) < 0)
 *       fprintf(stderr, "%s\n", kvs_last_error());
 *   kvs_batch_free(batch);
 *
 * Returns: KVS_OK; KVS_ERR_BATCH_TOO_LONG: it takes more than 96 MiB, its longest write not
 *          counted, so split it; KVS_ERR_UNSUPPORTED: unknown flags, or an expiry and an engine
 *          without; KVS_ERR_READ_ONLY; KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_POISONED;
 *          KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL. Nothing of the batch is applied then.
 * Threads: any for the store, promise 5 for the batch.
 * Cost:    that of kvs_set, once for all of it; with KVS_WRITE_SYNC one sync.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API KVS_MUST_USE kvs_status kvs_write(kvs_store *store, const kvs_batch *batch, uint32_t flags);

/**
 * Begins a scan of the keys from start on and before end, in the order of their bytes. NULL with
 * length 0 is no bound: both NULL are all keys. A range that ends before it starts is empty, which
 * is no failure.
 *
 * flags is 0, or KVS_SCAN_REVERSE and KVS_SCAN_KEYS_ONLY by choice; either way start is the
 * smaller end, and in.
 *
 * Ownership: *iter is yours; give it to kvs_iter_free, before or after the store. NULL is stored
 *            on failure.
 * Returns:   KVS_OK, also if there is nothing to see; KVS_ERR_UNSUPPORTED: unknown flags;
 *            KVS_ERR_IO; KVS_ERR_CORRUPT; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL;
 *            KVS_ERR_INVALID.
 * Threads:   any; the iterator is for one thread at a time.
 * Cost:      the first scan in order of a store reads every key once to put them in order, which
 *            from then on takes the length of each key and about 75 bytes of memory
 *            (KVS_OPT_ORDERED does it when the store is opened); further ones begin at once.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_scan(kvs_store *store,
                    const void *start,
                    size_t start_len,
                    const void *end,
                    size_t end_len,
                    uint32_t flags,
                    kvs_iter **iter);

/**
 * Begins a scan of the keys that begin with prefix, in the order of their bytes: of all keys, if
 * prefix_len is 0.
 *
 * Ownership: *iter is yours; give it to kvs_iter_free, before or after the store. NULL is stored
 *            on failure.
 * Returns:   as kvs_scan, whose flags it takes.
 * Threads:   any; the iterator is for one thread at a time.
 * Cost:      as kvs_scan.
 *
 * # Safety
 *
 * Promises 1 to 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_scan_prefix(kvs_store *store,
                           const void *prefix,
                           size_t prefix_len,
                           uint32_t flags,
                           kvs_iter **iter);

/**
 * Begins a scan of every key in no order: the cheapest way to see all of them.
 *
 * flags is 0 or KVS_SCAN_KEYS_ONLY.
 *
 * Ownership: *iter is yours; give it to kvs_iter_free, before or after the store. NULL is stored
 *            on failure.
 * Returns:   as kvs_scan.
 * Threads:   any; the iterator is for one thread at a time.
 * Cost:      nothing is put in order; files are read from front to back. Until the iterator is
 *            freed, files that compaction has replaced may stay on disk.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_scan_unordered(kvs_store *store,
                              uint32_t flags,
                              kvs_iter **iter);

/**
 * Goes on to the next record of a scan and stores where it is. The pointers are not NULL with
 * KVS_OK, also to nothing; otherwise NULL and 0 are stored.
 *
 * Example:
 *
 *   kvs_iter *iter = NULL;
 *   const void *key, *value;
 *   size_t key_len, value_len;
 *   kvs_status status = kvs_scan_prefix(store, "user:", 5, 0, &iter);
 *   if (status == KVS_OK)
 *       while ((status = kvs_iter_next(iter, &key, &key_len, &value, &value_len)) == KVS_OK)
 *           printf("%.*s\n", (int)key_len, (const char *)key);
 *   if (status < 0)
 *       fprintf(stderr, "%s\n", kvs_last_error());
 *   kvs_iter_free(iter);
 *
 * Ownership: the iterator's: the bytes are valid until its next call or kvs_iter_free, also after
 *            the store was closed and freed.
 * Returns:   KVS_OK; KVS_END: there are no more, and never will be for this iterator;
 *            KVS_ERR_CORRUPT or KVS_ERR_IO: about one key or about all that follow, so whoever
 *            calls again gets what can still be read; KVS_ERR_CLOSED: the store has been closed,
 *            and so has the scan; KVS_ERR_POISONED: a bug was caught in this iterator;
 *            KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads:   promise 5.
 * Cost:      a lookup for each record; nothing is copied but the key.
 *
 * # Safety
 *
 * Promises 1, 3, 4 and 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_iter_next(kvs_iter *iter,
                         const void **key,
                         size_t *key_len,
                         const void **value,
                         size_t *value_len);

/**
 * Goes on to the next records of a scan, as many as fit, and copies them into memory of yours: dst
 * has room for capacity bytes. For languages in which a call of C is dear, and for programs that
 * copy what they read. It may be mixed with kvs_iter_next: no record is lost, and none comes
 * twice.
 *
 * Records lie one after the other without padding. Each length has 4 bytes, least significant
 * first, on every machine. No record is ever split.
 *
 *   | key_len u32 | value_len u32 | key ... | value ... | key_len u32 | ...
 *   0             4               8         8 + key_len   8 + key_len + value_len
 *
 * *used is the number of bytes of dst that hold records and *count the number of records, with
 * KVS_OK at least 1. *needed is the size of the record that does not fit, with KVS_TOO_SMALL.
 * Otherwise they are 0; what dst holds behind *used is not said.
 *
 * Example:
 *
 *   static unsigned char block[65536];
 *   size_t used, count, needed;
 *   kvs_iter *iter = NULL;
 *   if (kvs_scan_unordered(store, 0, &iter) == KVS_OK)
 *       while (kvs_iter_next_many(iter, block, sizeof block, &used, &count, &needed) == KVS_OK) {
 *           const unsigned char *at = block;
 *           while (at < block + used) {
 *               size_t key_len = at[0] | at[1] << 8 | at[2] << 16 | (size_t)at[3] << 24;
 *               size_t value_len = at[4] | at[5] << 8 | at[6] << 16 | (size_t)at[7] << 24;
 *               printf("%.*s\n", (int)key_len, (const char *)at + 8);
 *               at += 8 + key_len + value_len;
 *           }
 *       }
 *   kvs_iter_free(iter);
 *
 * Returns: KVS_OK; KVS_END; KVS_TOO_SMALL: not even the next record fits, so call again with
 *          *needed bytes of room; otherwise as kvs_iter_next. A failure behind records that were
 *          copied is told by the next call.
 * Threads: promise 5.
 * Cost:    a lookup and a copy for each record; 64 KiB are a good capacity.
 *
 * # Safety
 *
 * Promises 1, 3, 4 and 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_iter_next_many(kvs_iter *iter,
                              void *dst,
                              size_t capacity,
                              size_t *used,
                              size_t *count,
                              size_t *needed);

/**
 * Frees an iterator, at whatever place it is. NULL is allowed. In a child made by fork it releases
 * memory and touches nothing else.
 *
 * Threads: promises 4 and 5.
 * Cost:    hardly any.
 *
 * # Safety
 *
 * Promises 1, 4 and 5.
 */
KVS_API void kvs_iter_free(kvs_iter *iter);

/**
 * Stores the number of keys. Keys that have expired count until compaction has dropped them, which
 * kvs_compact does at once.
 *
 * Returns: KVS_OK; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL. *count is 0 unless KVS_OK.
 * Threads: any.
 * Cost:    the same however many there are.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_len(kvs_store *store, uint64_t *count);

/**
 * Removes every key. After a crash all of them are gone or none is (with the engine sled, some may
 * be); who reads at the same time may see some keys gone before others. Keys that are set
 * meanwhile by other threads are gone or stay.
 *
 * Returns: KVS_OK; KVS_ERR_READ_ONLY; KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_POISONED;
 *          KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    one record, however many keys there are, and a wait for a compaction under way; the
 *          space comes back in the background. With the engine sled each key is removed by itself.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_clear(kvs_store *store);

/**
 * Makes every write that has returned so far survive power loss.
 *
 * Returns: KVS_OK; KVS_ERR_IO: the disk refuses, and the store takes no more writes;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    one sync of the disk, shared with those who wait for one at the same time.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_sync(kvs_store *store);

/**
 * Gives back the disk space of overwritten and removed keys, and returns when that is done. Reads
 * and writes go on meanwhile. Not needed for correctness: by default it happens in the background.
 *
 * Returns: KVS_OK; KVS_ERR_NO_SPACE; KVS_ERR_CORRUPT; KVS_ERR_IO: nothing is lost;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    copies every live record that shares a file with dead ones.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_compact(kvs_store *store);

/**
 * Makes a copy of the store in another directory, which must not exist or be empty, while reads
 * and writes go on. The copy opens as it is and holds all writes up to one moment of their order,
 * all of them durable. If this fails nothing of it stays.
 *
 * dest_utf8 is UTF-8 on every platform.
 *
 * Returns: KVS_OK; KVS_ERR_STORE_EXISTS: something is in the directory; KVS_ERR_NOT_A_DIRECTORY;
 *          KVS_ERR_LOCKED; KVS_ERR_INVALID: the path is empty; KVS_ERR_NOT_UTF8;
 *          KVS_ERR_UNSUPPORTED: the engine makes none; KVS_ERR_NO_SPACE; KVS_ERR_IO;
 *          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    on the same file system hardly any disk space at first: sealed files get a second
 *          name. Elsewhere a copy of every file. Waits for a compaction under way.
 *
 * # Safety
 *
 * Promises 1, 2 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_checkpoint(kvs_store *store, const char *dest_utf8);

/**
 * Reads every record of the store, and the record of every key, and counts what is damaged.
 * Changes nothing; reads and writes go on meanwhile. A program that wants to know where the
 * damage is calls kvs_verify_json instead.
 *
 * *records is how many records are whole. *bad is how many stretches of the files are damaged,
 * and how many keys cannot be read because of it, together: 0 if the store is sound. Both are 0 on
 * failure.
 *
 * Returns: KVS_OK, also if there is damage; KVS_ERR_UNSUPPORTED: the engine cannot be verified;
 *          KVS_ERR_IO: a file cannot be opened; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    reads every file of the store.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_verify(kvs_store *store, uint64_t *records, uint64_t *bad);

/**
 * As kvs_verify, with all that it found as JSON: an object with the members segment_count,
 * record_count, total_bytes, live_key_count, unreadable_key_count, crash_tail_bytes, damage_count
 * and damages. The last is an array of the first thousand damages, objects with the members path,
 * offset, bytes, what (in words) and writes (the first and last number of the writes that were
 * there, or null). Later versions may add members.
 *
 * Ownership: *report is yours; give it to kvs_buf_free. It is UTF-8 without a zero byte at the
 *            end. NULL is stored on failure.
 * Returns:   as kvs_verify.
 * Threads:   any.
 * Cost:      reads every file of the store.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_verify_json(kvs_store *store, kvs_buf **report);

/**
 * Stores figures of a store in a structure of yours: stats has stats_len bytes. Pass
 * sizeof(kvs_stats), so that a program and a library of different versions understand each other:
 * of a structure longer than the library's the rest is 0, of a shorter one the rest is left out.
 *
 * Example:
 *
 *   kvs_stats stats;
 *   if (kvs_get_stats(store, &stats, sizeof stats) == KVS_OK)
 *       printf("%lu keys\n", (unsigned long)stats.key_count);
 *
 * Returns: KVS_OK; KVS_ERR_UNSUPPORTED: the engine has none; KVS_ERR_CLOSED; KVS_ERR_FORKED;
 *          KVS_ERR_NULL; KVS_ERR_INVALID. All bytes of the structure are 0 unless KVS_OK.
 * Threads: any.
 * Cost:    takes locks, briefly, and looks at every segment: not for every read.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_get_stats(kvs_store *store, kvs_stats *stats, size_t stats_len);

/**
 * The same figures as JSON: an object whose members are called as those of kvs_stats, of which
 * is_poisoned, is_reserve_lent and has_tail are true or false. Beyond them it has
 * background_error, the text of what background compaction failed with last, until kvs_compact has
 * returned it, or null; and group_sizes, an array that says how many groups were of 1 record, of 2
 * or 3, 4 to 7 and so on. Later versions may add members.
 *
 * Ownership: *json is yours; give it to kvs_buf_free. It is UTF-8 without a zero byte at the end.
 *            NULL is stored on failure.
 * Returns:   as kvs_get_stats.
 * Threads:   any.
 * Cost:      as kvs_get_stats.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API KVS_MUST_USE kvs_status kvs_stats_json(kvs_store *store, kvs_buf **json);

/**
 * Starts a server on an open store, in threads of its own. When this returns KVS_OK it is
 * listening. Other programs reach the store through it, for example with kvs-client; this one goes
 * on using the store as before.
 *
 * address is "IP:PORT"; with port 0 the system chooses one, which kvs_server_port tells. There is
 * no authentication, so a loopback address is the safe choice. With KVS_OPT_SERVER_LISTEN_FD the
 * address may be anything but NULL. options may be NULL for the defaults; those that are for
 * stores are not looked at.
 *
 * Example:
 *
 *   kvs_server *server = NULL;
 *   uint16_t port = 0;
 *   if (kvs_server_start(store, "127.0.0.1:0", NULL, &server) < 0)
 *       fprintf(stderr, "%s\n", kvs_last_error());
 *   else if (kvs_server_port(server, &port) == KVS_OK)
 *       printf("kvs-client --addr 127.0.0.1:%u get no\n", (unsigned)port);
 *   kvs_server_free(server);
 *
 * Ownership: *server is yours; give it to kvs_server_free. It may outlive the store's handle. NULL
 *            is stored on failure.
 * Returns:   KVS_OK; KVS_ERR_NET: the address is no address or cannot be listened on;
 *            KVS_ERR_INVALID: an option cannot work; KVS_ERR_THREAD; KVS_ERR_CLOSED;
 *            KVS_ERR_POISONED; KVS_ERR_FORKED; KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
 * Threads:   any.
 * Cost:      its threads.
 *
 * # Safety
 *
 * Promises 1 to 5.
 */
KVS_API
KVS_MUST_USE
kvs_status kvs_server_start(kvs_store *store,
                            const char *address,
                            const kvs_options *options,
                            kvs_server **server);

/**
 * Copies the address that a server listens on, as "IP:PORT" with the real port and a zero byte at
 * the end, into memory of yours: dst has room for capacity bytes. 64 are enough for any address.
 *
 * *text_len is the length of the text without the zero byte with KVS_OK and with KVS_TOO_SMALL,
 * else 0.
 *
 * Returns: KVS_OK; KVS_TOO_SMALL: nothing was copied, there must be room for *text_len + 1 bytes;
 *          KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    none.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API
kvs_status kvs_server_address(const kvs_server *server,
                              char *dst,
                              size_t capacity,
                              size_t *text_len);

/**
 * Stores the port that a server listens on: the real one, also if it was started with port 0.
 *
 * Returns: KVS_OK; KVS_ERR_FORKED; KVS_ERR_NULL. *port is 0 unless KVS_OK.
 * Threads: any.
 * Cost:    none.
 *
 * # Safety
 *
 * Promises 1, 3 and 4.
 */
KVS_API kvs_status kvs_server_port(const kvs_server *server, uint16_t *port);

/**
 * Waits until a server has stopped, because another thread called kvs_server_stop or because it
 * failed; at most timeout_ms milliseconds, or without end with KVS_WAIT_FOREVER.
 *
 * Returns: KVS_OK: it has stopped, and its threads are gone; KVS_TIMEOUT: it is running;
 *          KVS_ERR_NET, KVS_ERR_IO: it failed, and this is why; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any.
 * Cost:    none; it sleeps.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_server_wait(kvs_server *server, uint32_t timeout_ms);

/**
 * Stops a server: accepts no more, answers what was received, and after timeout_ms milliseconds
 * cuts off the clients that are left. Returns when its threads are gone and its port is free. The
 * store stays open. Stopping twice is no error.
 *
 * Returns: KVS_OK; KVS_ERR_NET, KVS_ERR_IO: it had failed before; KVS_ERR_FORKED; KVS_ERR_NULL.
 * Threads: any, beside any other call but kvs_server_free.
 * Cost:    waits for the clients, timeout_ms at most, and for the requests under way.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API kvs_status kvs_server_stop(kvs_server *server, uint32_t timeout_ms);

/**
 * Frees a server, and stops it first if that has not been done, without waiting for its clients.
 * NULL is allowed. In a child made by fork it releases memory and touches nothing else.
 *
 * Threads: promise 4.
 *
 * # Safety
 *
 * Promises 1 and 4.
 */
KVS_API void kvs_server_free(kvs_server *server);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVS_H */
