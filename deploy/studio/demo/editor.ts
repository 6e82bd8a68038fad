/** The dataset of the sandbox, and who edits it. */
export const WHERE = {projectId: 'sandbox', dataset: 'production'}
const ROLE = {name: 'administrator', title: 'Administrator'}

export const EDITOR = {
  id: 'p-editor',
  name: 'Editor',
  email: 'editor@example.org',
  profileImage: '',
  role: ROLE.name,
  roles: [ROLE],
}
