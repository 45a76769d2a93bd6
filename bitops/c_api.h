/* c_api.h: where the extension module finds the table that it hands out. */
#ifndef BITOPS_C_API_H
#define BITOPS_C_API_H

#include "bitops_api.h"

const bitops_api *bitops_c_api(void);

#endif
