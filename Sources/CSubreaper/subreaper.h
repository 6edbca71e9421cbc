#pragma once

#ifdef __linux__
#include <sys/prctl.h>

// prctl takes a variable number of arguments, which Swift cannot call.
static inline int become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }
#endif
