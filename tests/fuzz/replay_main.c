/* SPDX-License-Identifier: Apache-2.0 */
/* A main() that runs a fuzz target on files, and on all files of folders, once each. */
#include <dirent.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned n_files;

static int replay_file(const char *path, size_t size)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = malloc(size ? size : 1); /* no larger: an over-read must be seen */
	int ret = -1;

	if (file && data && fread(data, 1, size, file) == size) {
		LLVMFuzzerTestOneInput(data, size);
		n_files++;
		ret = 0;
	}
	if (file)
		fclose(file);
	free(data);
	return ret;
}

static int replay(const char *path);

static int replay_folder(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	int ret = 0;

	if (!folder)
		return -1;
	while (!ret && (entry = readdir(folder))) {
		char *inside;

		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&inside, "%s/%s", path, entry->d_name) < 0)
			abort();
		ret = replay(inside);
		free(inside);
	}
	closedir(folder);
	return ret;
}

static int replay(const char *path)
{
	struct stat stat_;
	int ret;

	if (stat(path, &stat_))
		ret = -1;
	else if (S_ISDIR(stat_.st_mode))
		ret = replay_folder(path);
	else
		ret = replay_file(path, (size_t)stat_.st_size);
	if (ret)
		fprintf(stderr, "cannot read %s\n", path);
	return ret;
}

int main(int n_arguments, char **arguments)
{
	for (int i = 1; i < n_arguments; i++) {
		if (replay(arguments[i]))
			return 1;
	}
	printf("%u inputs\n", n_files);
	return n_files ? 0 : 1;
}
