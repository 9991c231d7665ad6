/*
 * A libnvidia-ml.so.1 with made-up devices, for tests of the real Python bindings on machines without a GPU.
 *
 * Device d (0, 1, ...) answers:
 *   utilisation   40 + 20 d percent at its first reading, 10 more at each later one, at most 100
 *   temperature   50 + 10 d degrees Celsius
 *   memory used   1000 (d + 1) MiB at its first reading, 100 MiB more at each later one
 *   power         100 + 50 d watts
 *   limit         400 watts of power
 *   energy        a counter that starts at 5000 J and rises by 400 + 200 d joules a second. That is not the power, so
 *                 a test can tell the counter from an integral of the power
 *   UUID          "GPU-a..." for device 0, "GPU-b..." for device 1, and so on
 * "MIG-<n>" names device n.
 *
 * Environment:
 *   STUB_NVML_DEVICES      how many devices there are; 2 if unset
 *   STUB_NVML_UNSUPPORTED  readings that answer "not supported", each with its device's number: "energy0,power1"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };
enum { MAX_DEVICES = 8, MIB = 1 << 20 };

typedef struct {
    unsigned number;
    unsigned utilisation_readings;
    unsigned memory_readings;
} Device;

typedef struct {
    unsigned gpu;
    unsigned memory;
} Utilisation;

typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} Memory;

static Device devices[MAX_DEVICES];

static unsigned device_count(void) {
    const char *text = getenv("STUB_NVML_DEVICES");
    return text ? (unsigned)atoi(text) : 2;
}

static int supported(const char *reading, const Device *device) {
    const char *unsupported = getenv("STUB_NVML_UNSUPPORTED");
    char name[32];
    snprintf(name, sizeof name, "%s%u", reading, device->number);
    return !unsupported || !strstr(unsupported, name);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    for (unsigned number = 0; number < MAX_DEVICES; number++)
        devices[number].number = number;
    return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int status) { return status == NOT_SUPPORTED ? "Not Supported" : "stub error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = device_count();
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned number, Device **device) {
    if (number >= device_count())
        return INVALID_ARGUMENT;
    *device = &devices[number];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    unsigned number;
    if (sscanf(uuid, "MIG-%u", &number) != 1)
        return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2(number, device);
}

int nvmlDeviceGetUUID(const Device *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%c0000000-0000-0000-0000-000000000000", 'a' + (int)device->number);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilisation *rates) {
    if (!supported("utilisation", device))
        return NOT_SUPPORTED;
    unsigned percent = 40 + 20 * device->number + 10 * device->utilisation_readings++;
    rates->gpu = percent < 100 ? percent : 100;
    rates->memory = 0;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(const Device *device, int sensor, unsigned *degrees) {
    (void)sensor;
    if (!supported("temperature", device))
        return NOT_SUPPORTED;
    *degrees = 50 + 10 * device->number;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    if (!supported("memory", device))
        return NOT_SUPPORTED;
    memory->total = 80000ULL * MIB;
    memory->used = (1000ULL * (device->number + 1) + 100ULL * device->memory_readings++) * MIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(const Device *device, unsigned *milliwatts) {
    if (!supported("power", device))
        return NOT_SUPPORTED;
    *milliwatts = 1000 * (100 + 50 * device->number);
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(const Device *device, unsigned *milliwatts) {
    if (!supported("limit", device))
        return NOT_SUPPORTED;
    *milliwatts = 400 * 1000;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(const Device *device, unsigned long long *millijoules) {
    if (!supported("energy", device))
        return NOT_SUPPORTED;
    static double start;
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    double now = (double)clock.tv_sec + 1e-9 * (double)clock.tv_nsec;
    if (start == 0)
        start = now;
    *millijoules = (unsigned long long)(1000 * (5000 + (400 + 200 * device->number) * (now - start)));
    return SUCCESS;
}
