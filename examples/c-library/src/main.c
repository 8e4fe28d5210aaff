#include <inttypes.h>
#include <stdio.h>

#include "crc32.h"

int main(void) {
    unsigned char buffer[65536];
    uint32_t crc = 0;
    size_t length;
    while ((length = fread(buffer, 1, sizeof buffer, stdin)) > 0)
        crc = crc32_update(crc, buffer, length);
    printf("%08" PRIx32 "\n", crc);
    return ferror(stdin) ? 1 : 0;
}
