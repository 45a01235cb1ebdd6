# Writes HEADER with the commit of SOURCE, "unknown" without git or outside of its work tree, where it has changed.
cmake_minimum_required(VERSION 3.18)
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --match= OUTPUT_VARIABLE commit
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit MATCHES "^[0-9a-f]+(-dirty)?$")
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define QWEN3_BUILD_COMMIT \"@commit@\"\n" @ONLY)
