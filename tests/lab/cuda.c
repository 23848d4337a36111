/* A stand-in for NVIDIA's libcuda.so.1: "a host with this driver", without a card. Environment variables say which driver.
 *
 *   CM_FAKE_CUINIT        what cuInit returns (default 0)
 *   CM_FAKE_CUDA_VERSION  cuDriverGetVersion, 12040 by default; 11040 is CUDA 11.4
 *   CM_FAKE_COUNT         cards (default 1); CUDA_VISIBLE_DEVICES hides some of them, as the true driver does
 *   CM_FAKE_CC            compute capability, "8.6" by default
 *   CM_FAKE_NAME          name of every card
 *   CM_FAKE_KERNEL        right (default) | wrong (one element) | stale (the kernel does nothing) | overrun (writes one element too many)
 *                         | fault (cuCtxSynchronize returns 700) | hang | crash | nojit (the PTX is refused: 222)
 *   CM_FAKE_WRONG_DEVICE  only this ordinal misbehaves (default: all)
 *
 * Device memory is host memory. cuLaunchKernel knows one kernel, `cm_probe` (probe_kernel.py), and computes what that PTX says; it does not run
 * PTX. NVIDIA's libcudart and PyTorch ask for the driver's functions through cuGetProcAddress, and end with "invalid argument" at the
 * export tables, which are secret: that is far enough to pass, or to fail, their test of the driver's version.
 */
#define _GNU_SOURCE
#ifndef DEFAULT_CUINIT
#define DEFAULT_CUINIT 0 /* 34: the library for linking, which the toolkit has under stubs/ */
#endif
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef void *handle;

enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
};

enum { MOST_DEVICES = 16 };

static int initialised;
static int current = -1;
static int contexts[MOST_DEVICES];
static int launched_fault;
static int module_token, kernel_token;

static const char *text(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int number(const char *name, int otherwise) {
    return atoi(text(name, "")) || *text(name, "") ? atoi(text(name, "0")) : otherwise;
}

/* Which cards CUDA_VISIBLE_DEVICES leaves: ordinals, read up to the first entry that names no card. */
static int visible(int *ordinals) {
    int all = number("CM_FAKE_COUNT", 1);
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    int count = 0;
    if (all > MOST_DEVICES) all = MOST_DEVICES;
    if (!list) {
        for (; count < all; count++) ordinals[count] = count;
        return count;
    }
    while (*list && count < MOST_DEVICES) {
        char *end;
        long ordinal = strtol(list, &end, 10);
        if (end == list || (*end && *end != ',') || ordinal < 0 || ordinal >= all) break;
        ordinals[count++] = (int)ordinal;
        list = *end ? end + 1 : end;
    }
    return count;
}

static int physical(int device) {
    int ordinals[MOST_DEVICES];
    int count = visible(ordinals);
    return device >= 0 && device < count ? ordinals[device] : -1;
}

static int behaves(const char *mode) {
    const char *only = text("CM_FAKE_WRONG_DEVICE", "");
    if (strcmp(text("CM_FAKE_KERNEL", "right"), mode) != 0) return 0;
    return !*only || atoi(only) == physical(current);
}

CUresult cuInit(unsigned flags) {
    int ordinals[MOST_DEVICES];
    int code = number("CM_FAKE_CUINIT", DEFAULT_CUINIT);
    if (flags) return INVALID_VALUE;
    if (code) return code;
    if (visible(ordinals) == 0) return NO_DEVICE;
    initialised = 1;
    return OK;
}

CUresult cuDriverGetVersion(int *version) { /* works without cuInit, as the true one does */
    if (!version) return INVALID_VALUE;
    *version = number("CM_FAKE_CUDA_VERSION", 12040);
    return OK;
}

CUresult cuDeviceGetCount(int *count) {
    int ordinals[MOST_DEVICES];
    if (!initialised) return NOT_INITIALIZED;
    *count = visible(ordinals);
    return OK;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    if (!initialised) return NOT_INITIALIZED;
    if (physical(ordinal) < 0) return INVALID_DEVICE;
    *device = ordinal;
    return OK;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    if (physical(device) < 0) return INVALID_DEVICE;
    snprintf(name, (size_t)length, "%s", text("CM_FAKE_NAME", "NVIDIA GeForce RTX 3090"));
    return OK;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    if (physical(device) < 0) return INVALID_DEVICE;
    *bytes = (size_t)24 << 30;
    return OK;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    int major = 8, minor = 6;
    if (physical(device) < 0) return INVALID_DEVICE;
    sscanf(text("CM_FAKE_CC", "8.6"), "%d.%d", &major, &minor);
    switch (attribute) {
        case 75: *value = major; return OK;
        case 76: *value = minor; return OK;
        case 16: *value = 82; return OK; /* multiprocessors */
        default: *value = 0; return OK;
    }
}

CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice device) {
    if (physical(device) < 0) return INVALID_DEVICE;
    snprintf(id, (size_t)length, "0000:%02X:00.0", physical(device) + 1);
    return OK;
}

CUresult cuDeviceGetUuid_v2(void *uuid, CUdevice device) {
    if (physical(device) < 0) return INVALID_DEVICE;
    memset(uuid, physical(device) + 1, 16);
    return OK;
}

CUresult cuDevicePrimaryCtxRetain(handle *context, CUdevice device) {
    if (!initialised) return NOT_INITIALIZED;
    if (physical(device) < 0) return INVALID_DEVICE;
    *context = &contexts[device];
    return OK;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    if (current == device) current = -1;
    return physical(device) < 0 ? INVALID_DEVICE : OK;
}

CUresult cuCtxSetCurrent(handle context) {
    current = context ? (int)((int *)context - contexts) : -1;
    return OK;
}

CUresult cuCtxGetCurrent(handle *context) {
    *context = current < 0 ? NULL : &contexts[current];
    return OK;
}

CUresult cuCtxSynchronize(void) {
    if (current < 0) return INVALID_CONTEXT;
    return launched_fault ? ILLEGAL_ADDRESS : OK;
}

CUresult cuModuleLoadDataEx(handle *module, const void *image, unsigned count, int *options, void **values) {
    if (current < 0) return INVALID_CONTEXT;
    if (behaves("nojit")) {
        for (unsigned index = 0; index < count; index++)
            if (options[index] == 5) /* CU_JIT_ERROR_LOG_BUFFER */
                strcpy(values[index], "ptxas application ptx input, line 3; fatal   : Unsupported .version 6.0; current version is '5.0'");
        return UNSUPPORTED_PTX_VERSION;
    }
    if (!strstr(image, ".visible .entry cm_probe(")) return INVALID_VALUE;
    *module = &module_token;
    return OK;
}

CUresult cuModuleLoadData(handle *module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }

CUresult cuModuleGetFunction(handle *function, handle module, const char *name) {
    if (module != &module_token) return INVALID_HANDLE;
    if (strcmp(name, "cm_probe") != 0) return NOT_FOUND;
    *function = &kernel_token;
    return OK;
}

CUresult cuModuleUnload(handle module) { return module == &module_token ? OK : INVALID_HANDLE; }

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    void *memory;
    if (current < 0) return INVALID_CONTEXT;
    memory = bytes ? malloc(bytes + 64) : NULL;
    if (!memory) return bytes ? OUT_OF_MEMORY : INVALID_VALUE;
    *pointer = (CUdeviceptr)(uintptr_t)memory;
    return OK;
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
    free((void *)(uintptr_t)pointer);
    return OK;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    if (current < 0) return INVALID_CONTEXT;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return OK;
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    if (current < 0) return INVALID_CONTEXT;
    if (launched_fault) return ILLEGAL_ADDRESS;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return OK;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    if (current < 0) return INVALID_CONTEXT;
    *total_bytes = (size_t)24 << 30;
    *free_bytes = (size_t)23 << 30;
    return OK;
}

/* cm_probe(words, floats, in, count): words[i] = in[i] * 1664525 + i; floats[i] = (words[i] >> 12) * 0.5 + 0.25 */
CUresult cuLaunchKernel(handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned shared, handle stream, void **arguments, void **extra) {
    (void)shared, (void)stream, (void)extra;
    if (current < 0) return INVALID_CONTEXT;
    if (function != &kernel_token || !arguments) return INVALID_HANDLE;
    if (grid_y * grid_z * block_y * block_z != 1 || block_x > 1024) return INVALID_VALUE;
    uint32_t *words = (uint32_t *)(uintptr_t)*(CUdeviceptr *)arguments[0];
    float *floats = (float *)(uintptr_t)*(CUdeviceptr *)arguments[1];
    const uint32_t *in = (const uint32_t *)(uintptr_t)*(CUdeviceptr *)arguments[2];
    uint32_t count = *(uint32_t *)arguments[3];
    if (behaves("crash")) abort();
    if (behaves("hang"))
        for (;;) pause();
    if (behaves("fault")) launched_fault = 1;
    if (behaves("fault") || behaves("stale")) return OK;
    for (uint64_t index = 0; index < (uint64_t)grid_x * block_x && index < count; index++) {
        words[index] = in[index] * 1664525u + (uint32_t)index;
        floats[index] = (float)(words[index] >> 12) * 0.5f + 0.25f;
    }
    if (behaves("wrong")) words[count / 2] ^= 1;
    if (behaves("overrun")) words[count] = 0;
    return OK;
}

static const struct {
    int code;
    const char *name, *words;
} ERRORS[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
};

CUresult cuGetErrorName(CUresult code, const char **name) {
    for (size_t index = 0; index < sizeof ERRORS / sizeof *ERRORS; index++)
        if (ERRORS[index].code == code) return *name = ERRORS[index].name, OK;
    return *name = NULL, INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult code, const char **words) {
    for (size_t index = 0; index < sizeof ERRORS / sizeof *ERRORS; index++)
        if (ERRORS[index].code == code) return *words = ERRORS[index].words, OK;
    return *words = NULL, INVALID_VALUE;
}

CUresult cuGetExportTable(const void **table, const void *id) {
    (void)id;
    *table = NULL;
    return INVALID_VALUE;
}

/* What libcudart asks for and this driver does not have: it may ask, and is refused when it calls. */
static CUresult refuse(void) { return INVALID_VALUE; }

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    char name[256];
    (void)version, (void)flags;
    if (status) *status = 0;
    /* Where both exist, the newer one; but whoever asks for cuGetProcAddress by this way has the older signature. */
    snprintf(name, sizeof name, "%s_v2", symbol);
    *function = strcmp(symbol, "cuGetProcAddress") == 0 ? NULL : dlsym(RTLD_DEFAULT, name);
    if (!*function) *function = dlsym(RTLD_DEFAULT, symbol);
    if (!*function) *function = (void *)refuse;
    return OK;
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}

/* In a container the environment belongs to the image: there the simulated NVIDIA hook leaves a file of KEY=VALUE lines. */
__attribute__((constructor)) static void read_settings(void) {
    char line[256];
    FILE *file = fopen("/etc/cm-fake-driver", "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, '=');
        if (!value) continue;
        *value++ = 0;
        value[strcspn(value, "\n")] = 0;
        setenv(line, value, 0);
    }
    fclose(file);
}
