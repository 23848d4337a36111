/* A stand-in for NVIDIA's libnvidia-ml.so.1: cards whose counters a small text file rules. NVIDIA's own Python client reads it too
 * (tests/payload/test_nvml.py), which holds it to the true layouts and names.
 *
 *   CM_FAKE_NVML   the file. It is read again at every call, so counters can change while a program runs. Without it: healthy cards.
 *   CM_FAKE_COUNT  cards (default 1), as in cuda.c; CM_FAKE_NAME their name. The file's `count` and `name` come first.
 *
 * A line is `key value`, `N.key value` for card N alone, or `# comment`; the last line that fits counts. A value is a number (0x.. too), a
 * comma-separated list that is gone through call by call, or `!CODE`: the function returns that error, 3 "Not Supported", 4 "Insufficient
 * Permissions", 13 "Function Not Found", 15 "GPU is lost", 999 "Unknown Error".
 * After a line `[after K]` all that follows counts only once NVML was initialised more than K times, by whatever process: the file
 * beside it, `<file>.inits`, counts. So a counter can differ between the beginning and the end of one run.
 *
 *   init            what nvmlInit_v2 returns
 *   hang            a function that never returns, by its name without "nvml" and version: hang DeviceGetUtilizationRates
 *   handle          0, or the error that getting a card's handle gives
 *   name driver     texts
 *   sm_clock memory_clock sm_clock_max memory_clock_max (MHz)  temperature  power (mW)  power_limit (mW)  energy (mJ)  energy_rate (mJ/s)
 *   events          the mask of event reasons          utilisation (%)
 *   ecc_uncorrected ecc_corrected ecc_uncorrected_ever ecc_corrected_ever     ecc !3: none of the four
 *   rows_correctable rows_uncorrectable rows_pending rows_failed              rows !3
 *   pages pages_pending      pcie_generation pcie_generation_max pcie_width pcie_width_max pcie_replays
 *   nvlinks         how many there are     nvlinks_active  how many of them are up
 *   compute_mode mig mig_pending persistence
 *   memory_total memory_reserved memory_used (MiB)     processes  how many     process_memory (MiB) of each     mps  MPS clients
 *
 * -DOLD_DRIVER leaves out what driver 470 does not have: the new name of the event reasons, memory info v2, process lists v3.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct card *nvmlDevice_t;
typedef unsigned long long u64;

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    ARGUMENT_VERSION_MISMATCH = 25,
};
enum { MOST_CARDS = 16, MOST_LINKS = 36, KEYS = 64 };

static struct card { int index; } cards[MOST_CARDS];
static int references;

/* ---- the file ---- */

static long inits(void) {
    char path[4096];
    struct stat status;
    const char *file = getenv("CM_FAKE_NVML");
    if (!file || !*file) return references;
    snprintf(path, sizeof path, "%s.inits", file);
    return stat(path, &status) == 0 ? (long)status.st_size : 0;
}

static void count_init(void) {
    char path[4096];
    const char *file = getenv("CM_FAKE_NVML");
    if (!file || !*file) return;
    snprintf(path, sizeof path, "%s.inits", file);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (descriptor < 0) return;
    if (write(descriptor, "i", 1) != 1) abort();
    close(descriptor);
}

/* The text behind a key, for one card (or -1), in `value`; 0 where the file has none. */
static int lookup(int card, const char *key, char *value, size_t size) {
    char line[512], wanted[96];
    const char *file = getenv("CM_FAKE_NVML");
    FILE *stream = file && *file ? fopen(file, "r") : NULL;
    int found = 0, counts = 1;
    if (!stream) return 0;
    snprintf(wanted, sizeof wanted, "%d.%s", card, key);
    while (fgets(line, sizeof line, stream)) {
        char *text = line, *end;
        long after;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "[after %ld]", &after) == 1) counts = inits() > after;
        if (!counts || *line == '#' || *line == '[') continue;
        end = text + strcspn(text, " ");
        if (!*end) continue;
        *end = 0;
        if (strcmp(text, key) == 0 || strcmp(text, wanted) == 0) {
            snprintf(value, size, "%s", end + 1);
            found = 1;
        }
    }
    fclose(stream);
    return found;
}

/* The entry of a comma-separated list whose turn it is, for this key of this process. */
static const char *turn(const char *key, const char *list) {
    static char names[KEYS][48];
    static unsigned calls[KEYS];
    unsigned entries = 1, which = 0, i;
    if (!strchr(list, ',')) return list;
    for (i = 0; list[i]; i++) entries += list[i] == ',';
    while (which < KEYS - 1 && *names[which] && strcmp(names[which], key) != 0) which++;
    snprintf(names[which], sizeof names[which], "%s", key);
    for (i = calls[which]++ % entries; i; i--) list = strchr(list, ',') + 1;
    return list;
}

static nvmlReturn_t get(int card, const char *key, u64 otherwise, u64 *number) {
    char value[256];
    *number = otherwise;
    if (!lookup(card, key, value, sizeof value)) return OK;
    const char *entry = turn(key, value);
    if (*entry == '!') return atoi(entry + 1);
    *number = strtoull(entry, NULL, 0);
    return OK;
}

static void text_of(int card, const char *key, const char *variable, const char *otherwise, char *value, size_t size) {
    const char *set = variable ? getenv(variable) : NULL;
    if (!lookup(card, key, value, size)) snprintf(value, size, "%s", set && *set ? set : otherwise);
}

static int count(void) {
    const char *set = getenv("CM_FAKE_COUNT");
    u64 number;
    get(-1, "count", set && *set ? (u64)atoi(set) : 1, &number);
    return number > MOST_CARDS ? MOST_CARDS : (int)number;
}

static void maybe_hang(const char *function) {
    char value[256];
    if (lookup(-1, "hang", value, sizeof value) && strcmp(value, function) == 0)
        for (;;) pause();
}

/* Every function begins with this: NVML was initialised, the handle is one of ours. */
static nvmlReturn_t ready(const char *function, nvmlDevice_t device) {
    maybe_hang(function);
    if (!references) return UNINITIALIZED;
    if (device < cards || device >= cards + count()) return INVALID_ARGUMENT;
    return OK;
}

static nvmlReturn_t number32(const char *function, nvmlDevice_t device, const char *key, u64 otherwise, unsigned *out) {
    u64 number = 0;
    nvmlReturn_t code = ready(function, device);
    if (code == OK && !out) code = INVALID_ARGUMENT;
    if (code == OK) code = get(device->index, key, otherwise, &number);
    if (code == OK) *out = (unsigned)number;
    return code;
}

static nvmlReturn_t number64(const char *function, nvmlDevice_t device, const char *key, u64 otherwise, u64 *out) {
    u64 number = 0;
    nvmlReturn_t code = ready(function, device);
    if (code == OK && !out) code = INVALID_ARGUMENT;
    if (code == OK) code = get(device->index, key, otherwise, &number);
    if (code == OK) *out = number;
    return code;
}

static nvmlReturn_t copy(const char *from, char *to, unsigned length) {
    if (!to) return INVALID_ARGUMENT;
    if (strlen(from) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return OK;
}

/* ---- the library ---- */

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    u64 unused;
    (void)flags;
    maybe_hang("Init");
    count_init();
    nvmlReturn_t code = get(-1, "init", 0, &unused);
    if (code == OK && unused) code = (nvmlReturn_t)unused;
    if (code) return code;
    for (int i = 0; i < MOST_CARDS; i++) cards[i].index = i;
    references++;
    return OK;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
    maybe_hang("Shutdown");
    if (!references) return UNINITIALIZED;
    references--;
    return OK;
}

const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
        case 0: return "Success";
        case 1: return "Uninitialized";
        case 2: return "Invalid Argument";
        case 3: return "Not Supported";
        case 4: return "Insufficient Permissions";
        case 6: return "Not Found";
        case 7: return "Insufficient Size";
        case 9: return "Driver Not Loaded";
        case 10: return "Timeout";
        case 13: return "Function Not Found";
        case 15: return "GPU is lost";
        case 18: return "Driver/library version mismatch";
        case 25: return "Argument Version Mismatch";
        default: return "Unknown Error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    char value[80];
    if (!references) return UNINITIALIZED;
    text_of(-1, "driver", NULL, "550.54.15", value, sizeof value);
    return copy(value, version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    const char *set = getenv("CM_FAKE_CUDA_VERSION");
    if (!references) return UNINITIALIZED;
    *version = set && *set ? atoi(set) : 12040;
    return OK;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *number) {
    maybe_hang("DeviceGetCount");
    if (!references) return UNINITIALIZED;
    *number = (unsigned)count();
    return OK;
}

static nvmlReturn_t handle(int index, nvmlDevice_t *device) {
    u64 code = 0;
    if (!references) return UNINITIALIZED;
    if (index < 0 || index >= count()) return INVALID_ARGUMENT;
    nvmlReturn_t refused = get(index, "handle", 0, &code);
    if (refused) return refused;
    *device = &cards[index];
    return OK;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    maybe_hang("DeviceGetHandleByIndex");
    return handle((int)index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    unsigned domain, bus, slot;
    if (!references) return UNINITIALIZED;
    if (sscanf(bus_id, "%x:%x:%x.0", &domain, &bus, &slot) != 3) return INVALID_ARGUMENT;
    if (domain || slot || bus < 1 || (int)bus > count()) return NOT_FOUND;
    return handle((int)bus - 1, device);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    char value[96];
    nvmlReturn_t code = ready("DeviceGetName", device);
    if (code) return code;
    text_of(device->index, "name", "CM_FAKE_NAME", "NVIDIA GeForce RTX 3090", value, sizeof value);
    return copy(value, name, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    char value[96];
    nvmlReturn_t code = ready("DeviceGetUUID", device);
    if (code) return code;
    int b = device->index + 1; /* as cuda.c says it: sixteen equal bytes */
    snprintf(value, sizeof value, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b, b, b, b, b, b, b, b, b, b, b, b,
             b, b, b, b);
    return copy(value, uuid, length);
}

struct pci_info {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct pci_info *info) {
    nvmlReturn_t code = ready("DeviceGetPciInfo", device);
    if (code) return code;
    memset(info, 0, sizeof *info);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "0000:%02X:00.0", (unsigned)(device->index + 1) & 0xff);
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", (unsigned)(device->index + 1) & 0xff);
    info->bus = (unsigned)device->index + 1;
    info->pci_device_id = 0x220410deu;
    return OK;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned kind, unsigned *mhz) {
    return number32("DeviceGetClockInfo", device, kind == 2 ? "memory_clock" : "sm_clock", kind == 2 ? 9501 : 1695, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned kind, unsigned *mhz) {
    return number32("DeviceGetMaxClockInfo", device, kind == 2 ? "memory_clock_max" : "sm_clock_max", kind == 2 ? 9751 : 2100, mhz);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius) {
    if (sensor) return INVALID_ARGUMENT;
    return number32("DeviceGetTemperature", device, "temperature", 55, celsius);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    return number32("DeviceGetPowerUsage", device, "power", 200000, milliwatts);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts) {
    return number32("DeviceGetEnforcedPowerLimit", device, "power_limit", 350000, milliwatts);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, u64 *millijoules) {
    struct timespec now;
    u64 rate;
    nvmlReturn_t code = number64("DeviceGetTotalEnergyConsumption", device, "energy", 1000000, millijoules);
    if (code) return code;
    get(device->index, "energy_rate", 200000, &rate);
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules += (u64)(((double)now.tv_sec + (double)now.tv_nsec * 1e-9) * (double)rate);
    return OK;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, u64 *mask) {
    return number64("DeviceGetCurrentClocksEventReasons", device, "events", 0, mask);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned kind, unsigned period, u64 *errors) {
    static const char *const keys[2][2] = {{"ecc_corrected", "ecc_corrected_ever"}, {"ecc_uncorrected", "ecc_uncorrected_ever"}};
    u64 unused;
    nvmlReturn_t code = ready("DeviceGetTotalEccErrors", device);
    if (code == OK && (kind > 1 || period > 1)) code = INVALID_ARGUMENT;
    if (code == OK) code = get(device->index, "ecc", 0, &unused);
    return code ? code : number64("DeviceGetTotalEccErrors", device, keys[kind][period], 0, errors);
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed) {
    const char *function = "DeviceGetRemappedRows";
    u64 unused;
    nvmlReturn_t code = ready(function, device);
    if (code == OK) code = get(device->index, "rows", 0, &unused);
    if (code == OK) code = number32(function, device, "rows_correctable", 0, correctable);
    if (code == OK) code = number32(function, device, "rows_uncorrectable", 0, uncorrectable);
    if (code == OK) code = number32(function, device, "rows_pending", 0, pending);
    return code ? code : number32(function, device, "rows_failed", 0, failed);
}

nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *pages, u64 *addresses) {
    unsigned number = 0, room = pages ? *pages : 0;
    nvmlReturn_t code = number32("DeviceGetRetiredPages", device, "pages", 0, &number);
    if (code) return code;
    if (cause > 1 || !pages) return INVALID_ARGUMENT;
    if (cause == 0) number = 0; /* all of them by a double-bit error */
    *pages = number;
    if (room < number) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; addresses && i < number; i++) addresses[i] = 0x1000ull * i;
    return OK;
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned *pending) {
    return number32("DeviceGetRetiredPagesPendingStatus", device, "pages_pending", 0, pending);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned *generation) {
    return number32("DeviceGetCurrPcieLinkGeneration", device, "pcie_generation", 4, generation);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned *generation) {
    return number32("DeviceGetMaxPcieLinkGeneration", device, "pcie_generation_max", 4, generation);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned *width) {
    return number32("DeviceGetCurrPcieLinkWidth", device, "pcie_width", 16, width);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned *width) {
    return number32("DeviceGetMaxPcieLinkWidth", device, "pcie_width_max", 16, width);
}

nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned *replays) {
    return number32("DeviceGetPcieReplayCounter", device, "pcie_replays", 0, replays);
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active) {
    u64 links, up;
    nvmlReturn_t code = ready("DeviceGetNvLinkState", device);
    if (code) return code;
    if (link >= MOST_LINKS) return INVALID_ARGUMENT;
    code = get(device->index, "nvlinks", 0, &links);
    if (code) return code;
    if (link >= links) return links ? INVALID_ARGUMENT : NOT_SUPPORTED;
    get(device->index, "nvlinks_active", links, &up);
    *active = link < up;
    return OK;
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned *mode) {
    return number32("DeviceGetComputeMode", device, "compute_mode", 0, mode);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *now, unsigned *pending) {
    nvmlReturn_t code = number32("DeviceGetMigMode", device, "mig", 0, now);
    return code ? code : number32("DeviceGetMigMode", device, "mig_pending", *now, pending);
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode) {
    return number32("DeviceGetPersistenceMode", device, "persistence", 1, mode);
}

struct memory { u64 total, free, used; };
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };

static nvmlReturn_t memory(nvmlDevice_t device, struct memory_v2 *memory) {
    const char *function = "DeviceGetMemoryInfo";
    nvmlReturn_t code = number64(function, device, "memory_total", 24576, &memory->total);
    if (code == OK) code = number64(function, device, "memory_reserved", 400, &memory->reserved);
    if (code == OK) code = number64(function, device, "memory_used", 4, &memory->used);
    if (code) return code;
    memory->total <<= 20;
    memory->reserved <<= 20;
    memory->used <<= 20;
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, struct memory *info) {
    struct memory_v2 all;
    nvmlReturn_t code = memory(device, &all);
    if (code) return code;
    info->total = all.total;
    info->free = all.free;
    info->used = all.used + all.reserved; /* the first version counts the driver's own memory as used */
    return OK;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, unsigned rates[2]) {
    nvmlReturn_t code = number32("DeviceGetUtilizationRates", device, "utilisation", 0, &rates[0]);
    if (code == OK) rates[1] = 0;
    return code;
}

struct process_v1 { unsigned pid; u64 used; };
struct process { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; };

static nvmlReturn_t processes(nvmlDevice_t device, const char *key, unsigned *room, char *array, size_t size) {
    unsigned number = 0, had = room ? *room : 0;
    u64 used = 0;
    nvmlReturn_t code = number32("DeviceGetComputeRunningProcesses", device, key, 0, &number);
    if (code) return code;
    if (!room) return INVALID_ARGUMENT;
    nvmlReturn_t hidden = get(device->index, "process_memory", 1000, &used); /* !4: 'not available', as under Windows */
    used = hidden ? UINT64_MAX : used << 20;
    *room = number;
    if (had < number) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; array && i < number; i++) {
        struct process one = {4000 + i, used, 0xffffffffu, 0xffffffffu};
        struct process_v1 first = {one.pid, one.used};
        memcpy(array + i * size, size == sizeof one ? (void *)&one : (void *)&first, size);
    }
    return OK;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *room, struct process_v1 *array) {
    return processes(device, "processes", room, (char *)array, sizeof *array);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *room, struct process *array) {
    return processes(device, "processes", room, (char *)array, sizeof *array);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t device, unsigned *room, struct process_v1 *array) {
    return processes(device, "mps", room, (char *)array, sizeof *array);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *room, struct process *array) {
    return processes(device, "mps", room, (char *)array, sizeof *array);
}

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, u64 *mask) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, mask);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, struct memory_v2 *info) {
    if (info->version != (sizeof *info | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    struct memory_v2 all = {.version = info->version};
    nvmlReturn_t code = memory(device, &all);
    if (code == OK) *info = all;
    return code;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *room, struct process *array) {
    return nvmlDeviceGetComputeRunningProcesses_v2(device, room, array);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *room, struct process *array) {
    return nvmlDeviceGetMPSComputeRunningProcesses_v2(device, room, array);
}
#endif
